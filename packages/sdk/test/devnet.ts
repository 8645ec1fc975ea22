// A devnet of its own for a test: bin/devnet on free ports, in a temporary directory.
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { until } from './server.js'

const repository = fileURLToPath(new URL('../../../', import.meta.url))

/** What the devnet writes to endpoints.json, as far as it is used here. */
export type Endpoints = {
  sharedSequencer: string
  chains: Record<number, { rpc: string; ws: string; node: string }>
}

export type Devnet = { endpoints: Endpoints; stop(): Promise<void> }

export async function startDevnet(): Promise<Devnet> {
  const binary = join(repository, 'bin', 'devnet')
  for (const [path, target] of [[binary, 'bin/devnet'], [join(repository, 'build', 'contracts'), 'contracts']] as const)
    if (!existsSync(path)) throw new Error(`${path} is missing: run "make ${target}" first`)
  const dir = mkdtempSync(join(tmpdir(), 'sdk-devnet-'))
  // It ends by itself if this process is killed.
  const child = spawn(binary, ['up', '--free-ports', '--for', '30m', '--datadir', dir], { cwd: repository, stdio: ['ignore', 'ignore', 'pipe'] })
  let stderr = ''
  child.stderr.on('data', (data) => {
    stderr += data
  })
  let ended = false
  const exited = new Promise<void>((resolve) => child.on('exit', resolve)).then(() => {
    ended = true
  })
  const stop = async () => {
    child.kill('SIGTERM')
    await exited
    rmSync(dir, { recursive: true, force: true })
  }
  // It is written when everything runs.
  const file = join(dir, 'endpoints.json')
  try {
    const text = await until(() => {
      if (ended) throw new Error(`the devnet ended while it started: ${stderr}`)
      return existsSync(file) && readFileSync(file, 'utf8')
    })
    return { endpoints: JSON.parse(text), stop }
  } catch (error) {
    await stop()
    throw error
  }
}
