/**
 * Preloaded into a process of a test (`node --import`): its clock is off by `CLOCK_AHEAD_MS`, for all that runs in it.
 */
const RealDate = Date;
const aheadMs = Number(process.env['CLOCK_AHEAD_MS'] ?? 0);

globalThis.Date = new Proxy(RealDate, {
  construct: (target, args: unknown[], newTarget) =>
    Reflect.construct(target, args.length === 0 ? [RealDate.now() + aheadMs] : args, newTarget),
  get: (target, key, receiver) =>
    key === 'now' ? () => RealDate.now() + aheadMs : Reflect.get(target, key, receiver),
});
