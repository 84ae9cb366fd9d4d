#!/usr/bin/env -S node --min-semi-space-size=8 --v8-pool-size=1
// Runs on any Node from 20 on: it finds the one that the gateway needs. Releases hold built code, a checkout only TypeScript.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { runUnderNode26 } from "./node26.mjs";

const built = fileURLToPath(new URL("../dist/src/main.js", import.meta.url));
const source = fileURLToPath(new URL("../src/main.ts", import.meta.url));

await runUnderNode26(existsSync(source) ? source : built, process.argv.slice(2));
