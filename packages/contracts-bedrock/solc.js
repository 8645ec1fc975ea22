// A stand-in for the native solc: reads standard JSON on stdin, writes the result to stdout.
//   node solc.js <path of soljson.js> [--version | ...]
// The solc package's own wrapper is not used: it keeps several copies of the input in JavaScript
// strings and runs out of memory on the largest job here.
"use strict";
const fs = require("fs");

const [soljson, ...args] = process.argv.slice(2);
const solc = require(soljson);

if (args.includes("--version")) {
  const version = solc.cwrap("solidity_version", "string", [])();
  console.log("solc, the solidity compiler commandline interface\nVersion: " + version);
} else {
  const input = fs.readFileSync(0);
  const at = solc._solidity_alloc(input.length + 1);
  solc.HEAPU8.set(input, at);
  solc.HEAPU8[at + input.length] = 0;
  const compile = solc.cwrap("solidity_compile", "string", ["number", "number", "number"]);
  process.stdout.write(compile(at, 0, 0));
}
