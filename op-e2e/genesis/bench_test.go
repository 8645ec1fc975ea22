package genesis

import (
	"context"
	"testing"
)

func BenchmarkBuild(b *testing.B) {
	b.Run("pipeline", func(b *testing.B) {
		cfg := DevConfig(testArtifacts(b), testTime)
		for b.Loop() {
			if _, err := Build(context.Background(), cfg); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cached", func(b *testing.B) {
		cfg := DevConfig(testArtifacts(b), testTime)
		cfg.CacheDir = b.TempDir()
		build(b, cfg)
		for b.Loop() {
			cfg.Timestamp++ // as tests do: never the same
			if _, err := Build(context.Background(), cfg); err != nil {
				b.Fatal(err)
			}
		}
	})
}
