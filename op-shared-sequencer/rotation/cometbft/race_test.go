//go:build race

package cometbft

func init() { raceDetector = true }
