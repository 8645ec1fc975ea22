package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ethereum-optimism/optimism/op-core/superchain"
)

// repoRoot is the repository as this package's tests see it.
const repoRoot = "../.."

// row is a row of the tables in a queue's README: | `path` | what | why |.
var row = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (\\+\\d+|added|generated) \\| (.+) \\|$")

// listed reads the tables of a queue's README: the lines of each hunk of each file,
// in order, and the files that are added or generated.
func listed(t *testing.T, q *Queue) (hunks map[string][]int, added, generated []string) {
	t.Helper()
	readme := get(t, filepath.Join(repoRoot, filepath.FromSlash(q.Dir)), "README.md")
	hunks = map[string][]int{}
	for _, m := range row.FindAllStringSubmatch(readme, -1) {
		switch m[2] {
		case "added":
			added = append(added, m[1])
		case "generated":
			generated = append(generated, m[1])
		default:
			n, err := strconv.Atoi(m[2])
			require.NoError(t, err)
			hunks[m[1]] = append(hunks[m[1]], n)
		}
	}
	require.NotEmpty(t, hunks, "%s/README.md has no table of hunks", q.Dir)
	return hunks, added, generated
}

// The patched trees are the pristine modules and what the queues' READMEs list, and
// nothing else: every file of upstream is there, byte for byte, with only the listed
// number of lines inserted at a place, and every other file is listed as ours.
func TestQueues(t *testing.T) {
	dirs, _, err := locate(repoRoot, t.Logf)
	require.NoError(t, err)
	for _, q := range queues {
		t.Run(q.Name, func(t *testing.T) {
			tree, err := q.plan(repoRoot, dirs, everything)
			require.NoError(t, err)
			dst := t.TempDir()
			require.NoError(t, tree.write(dst))

			pristine, err := q.upstreamFiles(dirs)
			require.NoError(t, err)
			hunks := map[string][]int{}
			var added, generated []string
			made := map[string][]byte{}
			if q.Generate != nil {
				made, err = q.Generate(dirs)
				require.NoError(t, err)
			}
			var compared int
			require.NoError(t, filepath.WalkDir(dst, func(p string, d os.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				rel, err := filepath.Rel(dst, p)
				require.NoError(t, err)
				rel = filepath.ToSlash(rel)
				have, err := os.ReadFile(p)
				require.NoError(t, err)
				old, upstreams := pristine[rel]
				delete(pristine, rel)
				switch {
				case made[rel] != nil:
					generated = append(generated, rel)
				case !upstreams:
					added = append(added, rel)
				default:
					was, err := os.ReadFile(old)
					require.NoError(t, err)
					compared++
					if !bytes.Equal(was, have) {
						hunks[rel], err = inserted(splitLines(was), splitLines(have), q.hunksOf(t, rel))
						require.NoError(t, err, rel)
					}
				}
				return nil
			}))
			require.Greater(t, compared, 1000, "the module is not that small")
			for rel := range pristine {
				t.Errorf("%s: upstream's file is missing", rel)
			}
			wantHunks, wantAdded, wantGenerated := listed(t, &q)
			require.Equal(t, wantHunks, hunks, "%s/README.md must have a row with the number of lines for each hunk", q.Dir)
			require.ElementsMatch(t, wantAdded, added, "%s/README.md must have a row for each added file", q.Dir)
			require.ElementsMatch(t, wantGenerated, generated, "%s/README.md must have a row for each generated file", q.Dir)
		})
	}
}

// hunksOf is what the patches of a queue insert into a file, in file order.
func (q *Queue) hunksOf(t *testing.T, file string) []Hunk {
	t.Helper()
	byPlace := map[int][]Hunk{}
	last := 0
	for _, name := range q.Patches {
		patch, err := loadPatch(filepath.Join(repoRoot, filepath.FromSlash(q.Dir), name))
		require.NoError(t, err)
		for _, f := range patch {
			for _, h := range f.Hunks {
				if f.Path == file {
					byPlace[h.At] = append(byPlace[h.At], h)
					last = max(last, h.At)
				}
			}
		}
	}
	var out []Hunk
	for at := 0; at <= last; at++ {
		out = append(out, byPlace[at]...)
	}
	return out
}

// inserted checks that have is was with the hunks inserted, walking both files line
// by line, and returns how many lines each hunk has. It shares nothing with the code
// that applies patches.
func inserted(was, have []string, hunks []Hunk) ([]int, error) {
	var sizes []int
	next := 0 // in have
	for at := 0; at <= len(was); at++ {
		for len(hunks) > 0 && hunks[0].At == at {
			for i, l := range hunks[0].Lines {
				if next >= len(have) || have[next] != l {
					return nil, fmt.Errorf("line %d is not line %d of the hunk after upstream's line %d", next+1, i+1, at)
				}
				next++
			}
			sizes = append(sizes, len(hunks[0].Lines))
			hunks = hunks[1:]
		}
		if at < len(was) {
			if next >= len(have) || have[next] != was[at] {
				return nil, fmt.Errorf("line %d is not upstream's line %d", next+1, at+1)
			}
			next++
		}
	}
	if next != len(have) || len(hunks) > 0 {
		return nil, fmt.Errorf("%d lines and %d hunks are left over", len(have)-next, len(hunks))
	}
	return sizes, nil
}

func TestInserted(t *testing.T) {
	was := []string{"a\n", "b\n"}
	hunks := []Hunk{{At: 1, Lines: []string{"x\n", "y\n"}}, {At: 2, Lines: []string{"z\n"}}}
	sizes, err := inserted(was, []string{"a\n", "x\n", "y\n", "b\n", "z\n"}, hunks)
	require.NoError(t, err)
	require.Equal(t, []int{2, 1}, sizes)
	for name, have := range map[string][]string{
		"changed":  {"A\n", "x\n", "y\n", "b\n", "z\n"},
		"deleted":  {"a\n", "x\n", "y\n", "z\n"},
		"more":     {"a\n", "x\n", "y\n", "b\n", "z\n", "z\n"},
		"unlisted": {"w\n", "a\n", "x\n", "y\n", "b\n", "z\n"},
		"short":    {"a\n", "x\n", "y\n", "b\n"},
	} {
		_, err := inserted(was, have, hunks)
		require.Error(t, err, name)
	}
}

// The verifier's tree has the Karst patch and no other.
func TestVerifierTree(t *testing.T) {
	dirs, _, err := locate(repoRoot, t.Logf)
	require.NoError(t, err)
	q := queueByName("op-geth")
	tree, err := q.plan(repoRoot, dirs, karstOnly)
	require.NoError(t, err)
	karst, err := loadPatch(filepath.Join(repoRoot, q.Dir, "karst.patch"))
	require.NoError(t, err)
	var want []string
	for _, f := range karst {
		want = append(want, f.Path)
	}
	require.ElementsMatch(t, want, sortedKeys(tree.rendered))
	pristine, err := q.upstreamFiles(dirs)
	require.NoError(t, err)
	for rel := range tree.copied {
		if _, ok := pristine[rel]; !ok {
			require.Regexp(t, `_karst(_test)?\.go$`, rel)
		}
	}
}

// The archive in the tree that these tests are built with is the one the queue makes,
// the same every time, and optimism's own loaders read every chain of it.
func TestSuperchainConfigs(t *testing.T) {
	dirs, _, err := locate(repoRoot, t.Logf)
	require.NoError(t, err)
	one, err := superchainConfigs(dirs)
	require.NoError(t, err)
	two, err := superchainConfigs(dirs)
	require.NoError(t, err)
	require.Equal(t, one, two)
	for rel, content := range one {
		require.True(t, get(t, repoRoot, "build/upstream/optimism/"+rel) == string(content), "%s is stale: run `make upstream`", rel)
	}

	networks := map[string]bool{}
	for id, c := range superchain.Chains {
		cfg, err := c.Config()
		require.NoError(t, err, "chain %d", id)
		require.Equal(t, id, cfg.ChainID)
		_, err = superchain.GetDepset(id)
		require.NoError(t, err, "chain %d", id)
		networks[c.Network] = true
	}
	require.GreaterOrEqual(t, len(superchain.Chains), 50)
	require.Len(t, networks, 4)
	for network := range networks {
		_, err := superchain.GetSuperchain(network)
		require.NoError(t, err, network)
	}
}
