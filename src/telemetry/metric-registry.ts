/** Makes metrics, and writes them in both formats of Prometheus. */
import { Counter, Gauge, Histogram, type OpenMetricsContentType, Registry } from 'prom-client';

const DURATION_BUCKETS = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];

export class MetricRegistry {
  readonly registry = new Registry();

  /** All metrics in the text format of Prometheus, or as OpenMetrics. */
  async write(format: 'prometheus' | 'openmetrics'): Promise<{ contentType: string; text: string }> {
    const registry = format === 'prometheus' ? this.registry : this.#openMetrics();
    return { contentType: registry.contentType, text: await registry.metrics() };
  }

  /** The same metrics. prom-client writes each registry in one format. */
  #openMetrics(): Registry<OpenMetricsContentType> {
    const registry = new Registry<OpenMetricsContentType>();
    registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
    for (const { name } of this.registry.getMetricsAsArray()) {
      const metric = this.registry.getSingleMetric(name);
      // Takes off the `_total` of a counter in place: the other format needs it.
      if (metric !== undefined) registry.registerMetric(Object.create(metric) as typeof metric);
    }
    return registry;
  }

  /** @param collect runs before the metric is read */
  protected counter<L extends string>(
    name: string,
    help: string,
    labelNames: readonly L[],
    collect = () => {},
  ): Counter<L> {
    return new Counter({ name, help, labelNames, collect, registers: [this.registry] });
  }

  protected gauge<L extends string>(name: string, help: string, labelNames: readonly L[]): Gauge<L> {
    return new Gauge({ name, help, labelNames, registers: [this.registry] });
  }

  /** @param collect runs before the metric is read */
  protected histogram<L extends string>(
    name: string,
    help: string,
    labelNames: readonly L[],
    { collect = () => {}, buckets = DURATION_BUCKETS } = {},
  ): Histogram<L> {
    return new Histogram({ name, help, labelNames, buckets, collect, registers: [this.registry] });
  }
}
