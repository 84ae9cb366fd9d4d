import { expect, it } from "vitest";
import { readProfile } from "../../bench/profile-shares.ts";

/** By index, which functions call which: start calls serve, which calls emit, which calls serve again. */
const CHILDREN: Readonly<Record<number, readonly number[]>> = { 6: [3, 6], 2: [8], 7: [4] };
const FILES = "file:///home/me/gateway";

it("adds up what each function, and each package or room, took itself", () => {
  const frames = [
    ["(idle)", "", -1],
    ["(garbage collector)", "", -1],
    ["serve", `${FILES}/src/scan/pipeline.ts`, 71],
    ["serve", `${FILES}/src/scan/pipeline.ts`, 71],
    ["", `${FILES}/node_modules/@hono/node-server/dist/index.mjs`, 9],
    ["parse", `${FILES}/icap/codec/parser.ts`, 0],
    ["start", `${FILES}/src/gateway.ts`, 4],
    ["emit", "node:internal/streams/readable", 99],
  ] as const;
  const nodes = frames.map(([functionName, url, lineNumber], index) => ({
    id: index + 1,
    children: CHILDREN[index] ?? [],
    callFrame: { functionName, url, lineNumber },
  }));
  const profile = { nodes, samples: [1, 2, 3, 4, 5, 6, 7, 8, 1], timeDeltas: [500, 10, 20, 20, 15, 5, 5, 25, 500] };

  const { busy, functions, totals, places } = readProfile(JSON.stringify(profile));
  expect(busy).toBe(100);
  expect(functions).toEqual([
    { name: "serve src/scan/pipeline.ts:72", share: 0.4 },
    { name: "emit node:internal/streams/readable:100", share: 0.25 },
    { name: "(anonymous) @hono/node-server/index.mjs:10", share: 0.15 },
    { name: "(garbage collector)", share: 0.1 },
    { name: "parse icap/codec/parser.ts:1", share: 0.05 },
    { name: "start src/gateway.ts:5", share: 0.05 },
  ]);
  expect(totals.filter(({ name }) => /^(?:serve|emit|parse|start) /.test(name))).toEqual([
    { name: "start src/gateway.ts:5", share: 0.75 },
    { name: "serve src/scan/pipeline.ts:72", share: 0.65 },
    { name: "emit node:internal/streams/readable:100", share: 0.45 },
    { name: "parse icap/codec/parser.ts:1", share: 0.05 },
  ]);
  expect(places.map(({ name }) => name)).toEqual([
    "src/scan",
    "node:internal/streams",
    "@hono/node-server",
    "(garbage collector)",
    "icap/codec",
    "src",
  ]);
});
