/**
 * `npm run bench:profile -- FILE [--top 30]`: where the time in a CPU profile went, by function and by package or room. `npm run bench -- --profile DIRECTORY`
 * writes such profiles; lines in them are those of the build, below dist/.
 */
import { readFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { table } from "../quickstart/table.ts";
import { type Share, readProfile } from "./profile-shares.ts";

const { values, positionals } = parseArgs({ options: { top: { type: "string", default: "30" } }, allowPositionals: true });
const [file] = positionals;
if (file === undefined) {
  process.stderr.write("npm run bench:profile -- FILE [--top 30]\n");
  process.exitCode = 2;
} else {
  const { busy, functions, totals, places } = readProfile(await readFile(file, "utf8"));
  const rows = (shares: readonly Share[]): (string | number)[][] =>
    shares.slice(0, Number(values.top)).map(({ name, share }) => [name, Number((share * 100).toFixed(1))]);
  console.log(`${(busy / 1e6).toFixed(1)} s of CPU time, in percent\n`);
  console.log(`${table(["function", "self"], rows(functions))}\n`);
  console.log(`${table(["function", "with what it calls"], rows(totals))}\n`);
  console.log(table(["place", "self"], rows(places)));
}
