// `node tools/run.mjs SCRIPT [ARG …]`: sets up what a fresh clone lacks, then runs SCRIPT under Node 26.
import { resolve } from "node:path";
import { ensurePackages, ROOT } from "./setup.mjs";

ensurePackages();
const { runUnderNode26 } = await import("../bin/node26.mjs");
const [script = "", ...args] = process.argv.slice(2);
await runUnderNode26(resolve(ROOT, script), args);
