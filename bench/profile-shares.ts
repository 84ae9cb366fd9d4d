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
  /** The same by package, by room of this project, or by module of Node. */
  readonly places: readonly Share[];
}

interface Profile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
  }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

/** @throws SyntaxError or TypeError for what is no profile */
export function readProfile(text: string): ProfileShares {
  const { nodes, samples, timeDeltas } = JSON.parse(text) as Profile;
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]));
  const functions = new Map<string, number>();
  const places = new Map<string, number>();
  let busy = 0;
  for (const [index, id] of samples.entries()) {
    const frame = frames.get(id);
    const time = timeDeltas[index] ?? 0;
    if (frame === undefined || frame.functionName === "(idle)") continue;
    busy += time;
    const place = placeOf(frame.url);
    add(functions, nameOf(frame, place), time);
    add(places, place === "" ? frame.functionName || "native" : place, time);
  }
  return { busy, functions: sharesOf(functions, busy), places: sharesOf(places, busy) };
}

function nameOf({ functionName, url, lineNumber }: Profile["nodes"][number]["callFrame"], place: string): string {
  const name = functionName === "" ? "(anonymous)" : functionName;
  return url === "" ? name : `${name} ${place}/${url.split("/").at(-1) ?? ""}:${lineNumber + 1}`;
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
