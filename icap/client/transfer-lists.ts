import type { HeaderBlock } from "../codec/headers.ts";
import type { ServiceInfo } from "./types.ts";

const MAX_ITEMS = 4096;
const EXTENSION = /^[\x21-\x7e]{1,64}$/;
/** All that no other list names. */
const OTHERS = "*";

/**
 * OPTIONS' lists of file name extensions (RFC 3507 section 4.10.2). When one of them can't be read whole, none is to be ignored: what was
 * left out may have named a file that must be sent.
 */
export function readTransferLists(headers: HeaderBlock): ServiceInfo["transfer"] {
  const preview = readList(headers, "transfer-preview");
  const ignore = readList(headers, "transfer-ignore");
  const complete = readList(headers, "transfer-complete");
  const whole = preview.whole && ignore.whole && complete.whole;
  return { preview: preview.items, ignore: whole ? ignore.items : [], complete: complete.items };
}

function readList(headers: HeaderBlock, name: string): { readonly items: readonly string[]; readonly whole: boolean } {
  const named = headers.all(name).flatMap((value) => value.split(/[,\s]+/));
  const known = new Set(named.filter((item) => item !== "").map((item) => item.replace(/^\./, "").toLowerCase()));
  const items = [...known].filter((item) => EXTENSION.test(item)).slice(0, MAX_ITEMS);
  return { items, whole: items.length === known.size };
}

/**
 * What the lists say of a file: sent whole, sent with a preview, or not sent. A name without an extension is one of the others. In doubt
 * (named by no list, or by more than one) the file is sent.
 */
export function transferOf(fileName: string, { preview, ignore, complete }: ServiceInfo["transfer"]): "complete" | "preview" | "ignore" {
  const dot = fileName.lastIndexOf(".");
  const extension = dot === -1 ? "" : fileName.slice(dot + 1).toLowerCase();
  for (const item of [extension, OTHERS]) {
    if (complete.includes(item)) return "complete";
    if (preview.includes(item)) return "preview";
    if (ignore.includes(item)) return "ignore";
  }
  return "complete";
}
