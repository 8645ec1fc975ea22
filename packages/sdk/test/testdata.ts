import { readFileSync } from 'node:fs'

/** A file of test/testdata, which Go wrote. */
export function testdata(name: string): any {
  return JSON.parse(readFileSync(new URL(`../test/testdata/${name}`, import.meta.url), 'utf8'))
}
