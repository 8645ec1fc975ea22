package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

const (
	forgeVersion   = "1.7.1"
	bedrockProject = "bedrock"
	ownProject     = "own"
	testProject    = "own-test"
)

var compilers = []string{"0.8.15", "0.8.25"}

// installPackages installs the locked npm packages and returns their node_modules. The directory is named by the
// lockfile's hash and kept, so that later builds need no network.
func (b *builder) installPackages(ctx context.Context) (string, error) {
	h := sha256.New()
	files := []string{"package.json", "package-lock.json", ".npmrc"}
	for _, name := range files {
		content, err := os.ReadFile(filepath.Join(b.kit, name))
		if err != nil {
			return "", err
		}
		h.Write(content)
	}
	dir := filepath.Join(b.work, "npm-"+hex.EncodeToString(h.Sum(nil))[:16])
	if _, err := os.Stat(dir); err == nil {
		return filepath.Join(dir, "node_modules"), nil
	}
	b.log.step("compilers and libraries: npm ci")
	tmp := dir + ".partial"
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return "", err
	}
	for _, name := range files {
		if err := copyFile(filepath.Join(b.kit, name), filepath.Join(tmp, name)); err != nil {
			return "", err
		}
	}
	// No package's script runs: everything here is data, except forge and node.
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = tmp
	if err := b.command(ctx, "npm ci", filepath.Join(b.work, "npm.log"), cmd); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", err
	}
	return filepath.Join(dir, "node_modules"), nil
}

// compileBedrock compiles upstream's contracts and deploy scripts and returns the directory of the artifacts.
func (b *builder) compileBedrock(ctx context.Context, optimism, npm string) (string, error) {
	project := filepath.Join(b.work, bedrockProject)
	if err := os.RemoveAll(project); err != nil {
		return "", err
	}
	upstream := filepath.Join(optimism, "packages", "contracts-bedrock")
	lib := filepath.Join(project, "lib")
	keccak := filepath.Join(lib, "lib-keccak", "contracts", "lib")
	for dst, src := range map[string]string{
		filepath.Join(project, "src"):                                         filepath.Join(upstream, "src"),
		filepath.Join(project, "scripts"):                                     filepath.Join(upstream, "scripts"),
		filepath.Join(project, "interfaces"):                                  filepath.Join(upstream, "interfaces"),
		filepath.Join(lib, "openzeppelin-contracts", "contracts"):             filepath.Join(npm, "oz4"),
		filepath.Join(lib, "openzeppelin-contracts-upgradeable", "contracts"): filepath.Join(npm, "oz4-upgradeable"),
		filepath.Join(lib, "openzeppelin-contracts-v5", "contracts"):          filepath.Join(npm, "oz5"),
		filepath.Join(lib, "solady", "src"):                                   filepath.Join(npm, "solady", "src"),
		filepath.Join(lib, "solmate", "src"):                                  filepath.Join(npm, "@rari-capital", "solmate", "src"),
		filepath.Join(lib, "safe-contracts", "contracts"):                     filepath.Join(npm, "@safe-global", "safe-contracts", "contracts"),
		filepath.Join(lib, "forge-std", "src"):                                filepath.Join(npm, "@layerzerolabs", "toolbox-foundry", "lib", "forge-std"),
		filepath.Join(lib, "forge-std", "lib", "ds-test", "src"):              filepath.Join(npm, "@layerzerolabs", "toolbox-foundry", "lib", "ds-test"),
	} {
		if err := os.CopyFS(dst, os.DirFS(src)); err != nil {
			return "", fmt.Errorf("copy sources: %w", err)
		}
	}
	for dst, src := range map[string]string{
		filepath.Join(keccak, "LibKeccak.sol"):                       filepath.Join(b.kit, "lib", "LibKeccak.sol"),
		filepath.Join(project, "src", "kit", "LibKeccakHarness.sol"): filepath.Join(b.kit, "lib", "LibKeccakHarness.sol"),
		filepath.Join(project, "test", "mocks", "EIP1967Helper.sol"): filepath.Join(upstream, "test", "mocks", "EIP1967Helper.sol"),
		filepath.Join(project, "test", "mocks", "AlphabetVM.sol"):    filepath.Join(upstream, "test", "mocks", "AlphabetVM.sol"),
	} {
		if err := copyFile(src, dst); err != nil {
			return "", err
		}
	}
	// It imports test code that the module does not carry, and nothing here needs it.
	if err := removeFound(filepath.Join(project, "scripts"), "VerifyOPCM.s.sol"); err != nil {
		return "", err
	}
	config, err := os.ReadFile(filepath.Join(upstream, "foundry.toml"))
	if err != nil {
		return "", err
	}
	changed, err := offlineConfig(string(config))
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(project, "foundry.toml"), []byte(changed), 0o644); err != nil {
		return "", err
	}
	if err := b.runForge(ctx, "forge build (upstream's contracts)", project, npm, "build"); err != nil {
		return "", err
	}
	return filepath.Join(project, artifactsDir), nil
}

// offlineConfig changes upstream's foundry.toml where a build without network and with npm's libraries needs it:
// compiler warnings in libraries do not stop the build, and syntax trees are not written (they make up most of the output).
func offlineConfig(config string) (string, error) {
	for _, change := range [][2]string{
		{"\ndeny = \"warnings\"\n", "\ndeny = \"never\"\noffline = true\n"},
		{"\nast = true\n", "\nast = false\n"},
	} {
		if strings.Count(config, change[0]) != 1 {
			return "", fmt.Errorf("upstream's foundry.toml has no line %q any more: adapt offlineConfig", strings.TrimSpace(change[0]))
		}
		config = strings.Replace(config, change[0], change[1], 1)
	}
	return config, nil
}

// ownConfig has the compiler settings of upstream's foundry.toml.
const ownConfig = `[profile.default]
src = 'token'
out = 'forge-artifacts'
solc_version = '0.8.25'
optimizer = true
optimizer_runs = 999999
extra_output = ['metadata', 'storageLayout']
bytecode_hash = 'none'
evm_version = 'cancun'
offline = true
remappings = [
  '@optimism/src/=src/',
  '@shared-sequencer/src/=token/',
  '@openzeppelin/contracts/=lib/openzeppelin-contracts/contracts',
  '@openzeppelin/contracts-v5/=lib/openzeppelin-contracts-v5/contracts',
  '@solady-v0.0.245/=lib/solady/src',
  'forge-std/=lib/forge-std/src',
  'interfaces/=interfaces',
]
`

// testConfig goes on where ownConfig ends. The seed makes a run the same every time.
const testConfig = `
[profile.default.fuzz]
runs = 512
seed = '0x1'
[profile.default.invariant]
runs = 64
depth = 64
fail_on_revert = true
`

// compileOwn compiles SuperchainTokenBridge and our own contracts and returns the directory of the artifacts.
func (b *builder) compileOwn(ctx context.Context, tokenBridge, npm string) (string, error) {
	project := filepath.Join(b.work, ownProject)
	if err := b.layOutOwn(project, tokenBridge, npm, ownConfig); err != nil {
		return "", err
	}
	err := b.runForge(ctx, "forge build (own contracts)", project, npm, "build", "token", "src/L2/SuperchainTokenBridge.sol")
	return filepath.Join(project, artifactsDir), err
}

// testOwn runs the forge tests of our own contracts and returns the line that sums them up. What was compiled is kept
// only if a test fails.
func (b *builder) testOwn(ctx context.Context, tokenBridge, npm string) (string, error) {
	project := filepath.Join(b.work, testProject)
	if err := b.layOutOwn(project, tokenBridge, npm, ownConfig+testConfig); err != nil {
		return "", err
	}
	if err := os.CopyFS(filepath.Join(project, "test"), os.DirFS(b.tests)); err != nil {
		return "", fmt.Errorf("copy tests: %w", err)
	}
	if err := b.runForge(ctx, "forge test (own contracts)", project, npm, "test"); err != nil {
		return "", err
	}
	output, err := os.ReadFile(b.forgeLog(project))
	if err != nil {
		return "", err
	}
	summary, err := testSummary(string(output))
	if err != nil {
		return "", err
	}
	return summary, os.RemoveAll(project)
}

// testSummary is the last line of forge test's output. That no test was found is an error, which forge does not think.
func testSummary(output string) (string, error) {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	last := lines[len(lines)-1]
	if !strings.HasPrefix(last, "Ran ") || strings.Contains(last, " 0 tests passed") {
		return "", fmt.Errorf("forge test ran no tests: it ended with %q", last)
	}
	return last, nil
}

// layOutOwn makes the forge project of our own contracts, which build on sources of the release with
// SuperchainTokenBridge.
func (b *builder) layOutOwn(project, tokenBridge, npm, config string) error {
	if err := os.RemoveAll(project); err != nil {
		return err
	}
	upstream := filepath.Join(tokenBridge, "packages", "contracts-bedrock")
	for dst, src := range map[string]string{
		filepath.Join(project, "src"):                                           filepath.Join(upstream, "src"),
		filepath.Join(project, "interfaces"):                                    filepath.Join(upstream, "interfaces"),
		filepath.Join(project, "token"):                                         b.sources,
		filepath.Join(project, "lib", "openzeppelin-contracts", "contracts"):    filepath.Join(npm, "oz4"),
		filepath.Join(project, "lib", "openzeppelin-contracts-v5", "contracts"): filepath.Join(npm, "oz5"),
		filepath.Join(project, "lib", "solady", "src"):                          filepath.Join(npm, "solady-0.0.249", "src"),
		filepath.Join(project, "lib", "forge-std", "src"):                       filepath.Join(npm, "@layerzerolabs", "toolbox-foundry", "lib", "forge-std"),
	} {
		if err := os.CopyFS(dst, os.DirFS(src)); err != nil {
			return fmt.Errorf("copy sources: %w", err)
		}
	}
	for dst, src := range map[string]string{
		filepath.Join("scripts", "libraries", "Config.sol"):       filepath.Join(upstream, "scripts", "libraries", "Config.sol"),
		filepath.Join("interfaces", "vendor", "IERC20Solady.sol"): filepath.Join(b.kit, "lib", "IERC20Solady.sol"),
	} {
		if err := copyFile(src, filepath.Join(project, dst)); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(project, "foundry.toml"), []byte(config), 0o644)
}

// runForge runs forge in a project with the npm compilers. Nothing of the user's foundry settings has an effect.
func (b *builder) runForge(ctx context.Context, what, project, npm, command string, args ...string) error {
	forge := b.forge
	if forge == "" {
		var err error
		if forge, err = packagedForge(npm); err != nil {
			return err
		}
	}
	home := filepath.Join(b.work, "home")
	if err := b.installCompilers(home, npm); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, forge, append([]string{command, "--offline", "--color", "never"}, args...)...)
	cmd.Dir = project
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()}
	b.log.step("%s", what)
	return b.command(ctx, what, b.forgeLog(project), cmd)
}

// forgeLog is where the output of forge in a project goes.
func (b *builder) forgeLog(project string) string {
	return filepath.Join(b.work, filepath.Base(project)+".log")
}

// packagedForge returns the forge binary of the npm package for this platform.
func packagedForge(npm string) (string, error) {
	arch := runtime.GOARCH // npm's and Go's names agree for both that exist
	forge := filepath.Join(npm, "@foundry-rs", "forge-"+runtime.GOOS+"-"+arch, "bin", "forge")
	if _, err := os.Stat(forge); err != nil {
		return "", fmt.Errorf("no forge for %s/%s in the lockfile: install forge %s and pass it with -forge", runtime.GOOS, arch, forgeVersion)
	}
	return forge, nil
}

// installCompilers puts scripts where forge looks for downloaded compilers; they run the npm packages' WebAssembly.
func (b *builder) installCompilers(home, npm string) error {
	svm := filepath.Join(home, ".local", "share", "svm")
	if runtime.GOOS == "darwin" {
		svm = filepath.Join(home, "Library", "Application Support", "svm")
	}
	for _, version := range compilers {
		file := filepath.Join(svm, version, "solc-"+version)
		script := fmt.Sprintf("#!/bin/sh\nexec %s %s %s \"$@\"\n", shellQuote(b.node), shellQuote(filepath.Join(b.kit, "solc.js")),
			shellQuote(filepath.Join(npm, "solc-"+version, "soljson.js")))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(script), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func copyFile(src, dst string) error {
	content, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	return os.WriteFile(dst, content, 0o644)
}

// removeFound removes every file of that name below dir.
func removeFound(dir, name string) error {
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() != name {
			return err
		}
		return os.Remove(path)
	})
}
