// Makes a database for Trivy out of a few advisories, so that tests need no network:
// make-trivy-db CACHE_DIRECTORY <ADVISORIES.json
package main

import (
	"encoding/json"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/aquasecurity/trivy-db/pkg/db"
	"github.com/aquasecurity/trivy-db/pkg/metadata"
	"github.com/aquasecurity/trivy-db/pkg/types"
	bolt "go.etcd.io/bbolt"
)

// advisory says that a package of a distribution is vulnerable before a version.
type advisory struct {
	Distribution string // as Trivy calls it: "alpine 3.20"
	Package      string
	ID           string
	Fixed        string // empty: in no version
	Severity     string
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: make-trivy-db CACHE_DIRECTORY <ADVISORIES.json")
	}
	if err := write(filepath.Join(os.Args[1], "db")); err != nil {
		log.Fatal(err)
	}
}

func write(directory string) error {
	var advisories []advisory
	if err := json.NewDecoder(os.Stdin).Decode(&advisories); err != nil {
		return err
	}
	if err := os.RemoveAll(directory); err != nil {
		return err
	}
	if err := db.Init(directory); err != nil {
		return err
	}
	config := db.Config{}
	err := config.BatchUpdate(func(tx *bolt.Tx) error {
		for _, entry := range advisories {
			source := types.DataSource{ID: "alpine", Name: "a test", URL: "https://example.invalid"}
			if err := config.PutDataSource(tx, entry.Distribution, source); err != nil {
				return err
			}
			names := []string{entry.Distribution, entry.Package}
			if err := config.PutAdvisory(tx, names, entry.ID, types.Advisory{FixedVersion: entry.Fixed}); err != nil {
				return err
			}
			if err := config.PutVulnerability(tx, entry.ID, types.Vulnerability{Severity: entry.Severity}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	now := time.Now().UTC()
	return metadata.NewClient(directory).Update(metadata.Metadata{
		Version:      db.SchemaVersion,
		UpdatedAt:    now,
		NextUpdate:   now.AddDate(1, 0, 0),
		DownloadedAt: now,
	})
}
