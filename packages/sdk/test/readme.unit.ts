import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'

const read = (path: string) => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8')

test('the example of the README is the one that compiles', () => {
  assert.ok(read('README.md').includes(`\`\`\`ts\n${read('test/example.ts')}\`\`\`\n`))
})
