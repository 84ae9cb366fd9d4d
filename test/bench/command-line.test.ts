import { describe, expect, it } from "vitest";
import { UsageError, chosen, parseCommandLine } from "../../bench/command-line.ts";
import type { Group } from "../../bench/row.ts";
import { GROUPS } from "../../bench/rows/index.ts";

const API = "/_matrix/media_proxy/unstable";
const DOWNLOAD = { title: "", endpoint: "download", size: 100, connections: 1, ceilings: [] } as const;
const TABLE: readonly Group[] = [
  {
    name: "one",
    title: "",
    rows: [
      { ...DOWNLOAD, name: "a" },
      { ...DOWNLOAD, name: "b", gateway: { redis: true } },
    ],
  },
  {
    name: "slow",
    title: "",
    onlyIfAsked: true,
    rows: [
      { ...DOWNLOAD, name: "c" },
      { name: "d", title: "", measure: async () => ({}) },
    ],
  },
];

function names(groups: readonly Group[]): string[] {
  return groups.flatMap(({ rows }) => rows.map(({ name }) => name));
}

describe("the command line of the benchmark", () => {
  it("has defaults", () => {
    expect(parseCommandLine([], API)).toEqual({
      only: undefined,
      list: false,
      runs: 3,
      seconds: 4,
      warmUp: 10,
      format: "text",
      profile: undefined,
      baseUrl: undefined,
      pid: undefined,
      homeserverPort: 0,
    });
  });

  it("reads what is given", () => {
    const args =
      "--only cold-10k,growth --runs 5 --seconds 0.5 --warm-up 0 --json --base-url http://127.0.0.1:8080/ --pid 42 --homeserver-port 8008";
    expect(parseCommandLine(args.split(" "), API)).toMatchObject({
      only: ["cold-10k", "growth"],
      runs: 5,
      seconds: 0.5,
      warmUp: 0,
      format: "json",
      baseUrl: `http://127.0.0.1:8080${API}`,
      pid: 42,
      homeserverPort: 8008,
    });
  });

  it("leaves the path of a base URL that has one", () => {
    expect(parseCommandLine(["--base-url", "http://h:1/mcs/"], API).baseUrl).toBe("http://h:1/mcs");
  });

  it.each([
    ["--runs", "0"],
    ["--runs", "1.5"],
    ["--runs", "many"],
    ["--seconds", "0"],
    ["--seconds", "1e9"],
    ["--warm-up", "-1"],
    ["--homeserver-port", "65536"],
    ["--base-url", "gateway"],
    ["--base-url", "https://h"],
    ["--pid", "42"],
    ["--json", "--markdown"],
    ["--fast"],
    ["cold-10k"],
  ])("refuses %s %s", (...args) => {
    expect(() => parseCommandLine(args, API)).toThrow(UsageError);
  });
});

describe("the rows that are measured", () => {
  it("are all but those that have to be asked for", () => {
    expect(names(chosen(TABLE, { only: undefined, baseUrl: undefined }))).toEqual(["a", "b"]);
  });

  it("are those that are asked for, by their own name or their group's", () => {
    expect(names(chosen(TABLE, { only: ["b", "slow"], baseUrl: undefined }))).toEqual(["b", "c", "d"]);
    expect(() => chosen(TABLE, { only: ["a", "e"], baseUrl: undefined })).toThrow("e;");
  });

  it("are, of what somebody else has started, those that need no gateway of their own", () => {
    expect(names(chosen(TABLE, { only: ["one", "slow"], baseUrl: "http://h" }))).toEqual(["a", "c"]);
  });

  it("have names of their own", () => {
    const all = [...names(GROUPS), ...GROUPS.map(({ name }) => name)];
    expect(new Set(all).size).toBe(all.length);
  });
});
