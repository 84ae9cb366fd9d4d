/** A CPU profile of V8 (the `Profile` of https://chromedevtools.github.io/devtools-protocol/tot/Profiler/), added up. */

/** Of the time in which anything was done. */
export interface Share {
  readonly name: string;
  readonly share: number;
}

export interface ProfileShares {
  /** Microseconds in which anything was done. */
  readonly busy: number;
  /** Self time by function, most first. */
  readonly functions: readonly Share[];
  /** Time in which each function was under way: its own, and that of what it called. */
  readonly totals: readonly Share[];
  /** The same by package, by room of this project, or by module of Node. */
  readonly places: readonly Share[];
}

interface CallFrame {
  readonly functionName: string;
  readonly url: string;
  readonly lineNumber: number;
}

interface Profile {
  readonly nodes: readonly {
    readonly id: number;
    readonly children?: readonly number[];
    readonly callFrame: CallFrame;
  }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

/** @throws SyntaxError or TypeError for what is no profile */
export function readProfile(text: string): ProfileShares {
  const { nodes, samples, timeDeltas } = JSON.parse(text) as Profile;
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]));
  const parents = new Map(nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id])));
  const functions = new Map<string, number>();
  const totals = new Map<string, number>();
  const places = new Map<string, number>();
  let busy = 0;
  for (const [index, id] of samples.entries()) {
    const frame = frames.get(id);
    const time = timeDeltas[index] ?? 0;
    if (frame === undefined || frame.functionName === "(idle)") continue;
    busy += time;
    const place = placeOf(frame.url);
    add(functions, nameOf(frame), time);
    for (const name of underWay(id, frames, parents)) add(totals, name, time);
    add(places, place === "" ? frame.functionName || "native" : place, time);
  }
  return { busy, functions: sharesOf(functions, busy), totals: sharesOf(totals, busy), places: sharesOf(places, busy) };
}

/** The function itself and those that led to it, each once. */
function underWay(id: number, frames: ReadonlyMap<number, CallFrame>, parents: ReadonlyMap<number, number>): ReadonlySet<string> {
  const names = new Set<string>();
  for (let at: number | undefined = id; at !== undefined; at = parents.get(at)) {
    const frame = frames.get(at);
    if (frame !== undefined && frame.functionName !== "(root)") names.add(nameOf(frame));
  }
  return names;
}

function nameOf({ functionName, url, lineNumber }: CallFrame): string {
  const name = functionName === "" ? "(anonymous)" : functionName;
  return url === "" ? name : `${name} ${placeOf(url)}/${url.split("/").at(-1) ?? ""}:${lineNumber + 1}`;
}

/** Empty for what has no file. */
function placeOf(url: string): string {
  if (url.startsWith("node:")) return url.split("/").slice(0, 2).join("/");
  const path = url.slice(url.lastIndexOf("/node_modules/") + 1);
  if (path.startsWith("node_modules/")) return /^node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1] ?? path;
  return /\/((?:src|icap)(?:\/[^/]+(?=\/))?)\//.exec(url)?.[1] ?? "";
}

function add(map: Map<string, number>, key: string, value: number): void {
  map.set(key, (map.get(key) ?? 0) + value);
}

function sharesOf(times: ReadonlyMap<string, number>, busy: number): Share[] {
  return [...times].map(([name, time]) => ({ name, share: time / busy })).toSorted((a, b) => b.share - a.share);
}
