package bench

import (
	"fmt"
	"time"

	"github.com/prometheus/procfs"
)

// usage is what processes have used so far.
type usage struct {
	CPU    time.Duration // user and system time, of all threads
	Memory float64       // MB, resident
}

// usageOf sums up processes and all their descendants. Processes that ended in between are no
// longer counted: a process that is measured must live through the measurement.
func usageOf(roots ...int) (usage, error) {
	all, err := procfs.AllProcs()
	if err != nil {
		return usage{}, fmt.Errorf("processes: %w", err)
	}
	stats, children := map[int]procfs.ProcStat{}, map[int][]int{}
	for _, p := range all {
		st, err := p.Stat()
		if err != nil {
			continue // it has ended
		}
		stats[p.PID] = st
		children[st.PPID] = append(children[st.PPID], p.PID)
	}
	var u usage
	for next := roots; len(next) > 0; {
		pid := next[len(next)-1]
		next = append(next[:len(next)-1:len(next)-1], children[pid]...)
		st, ok := stats[pid]
		if !ok {
			return usage{}, fmt.Errorf("process %d has ended while it was measured", pid)
		}
		u.CPU += time.Duration(st.CPUTime() * float64(time.Second))
		u.Memory += float64(st.ResidentMemory()) / (1 << 20)
	}
	return u, nil
}
