/** YAML text to plain values, with the place of every key. */
import { type Document, LineCounter, type Node, isAlias, isMap, isScalar, isSeq, parseDocument, visit } from "yaml";
import type { YAMLParseError, YAMLWarning } from "yaml";
import { type Path, type Problem, formatPath } from "./problems.ts";

/** More nodes than this that come from one alias are a bomb, not a configuration. */
const MOST_ALIASES = 100;
/** One mistake makes the parser complain many times. */
const MOST_PROBLEMS = 20;

export interface ParsedYaml {
  /** Undefined when the text is too broken to be read; `problems` then says why. */
  readonly value: unknown;
  readonly problems: readonly Problem[];
  /** A problem at the place of this key's value, or of the key itself; at the nearest section around it when it is not in the file. */
  problemAt(path: Path, message: string, at?: "key" | "value"): Problem;
}

/** The library's own messages quote the text, which may be a secret that was written without quotes. */
const WORDS: Record<YAMLParseError["code"], string> = {
  ALIAS_PROPS: "an alias (*) must not have a tag or an anchor",
  BAD_ALIAS: "not a good name for an anchor (&) or alias (*); a value that begins with one of these needs quotes",
  BAD_COLLECTION_TYPE: "this tag (!) does not fit",
  BAD_DIRECTIVE: "not a directive (%) that is known",
  BAD_DQ_ESCAPE: "unknown \\ escape inside \"…\"; inside '…' a \\ is only a \\",
  BAD_INDENT: "wrong indentation, or a bracket or quote that is not closed",
  BAD_PROP_ORDER: "a tag (!) or anchor (&) in the wrong place",
  BAD_SCALAR_START: "a value that begins with this character needs quotes",
  BLOCK_AS_IMPLICIT_KEY: "a second “: ” in one line; a value that holds one needs quotes",
  BLOCK_IN_FLOW: "a nested block inside brackets",
  DUPLICATE_KEY: "stands here for the second time",
  IMPOSSIBLE: "can't be read as YAML",
  KEY_OVER_1024_CHARS: "this key is too long",
  MISSING_CHAR: "something is missing here: a quote, a comma, a space or a “:”",
  MULTILINE_IMPLICIT_KEY: "a key and its “:” must be in one line",
  MULTIPLE_ANCHORS: "more than one anchor (&)",
  MULTIPLE_DOCS: "a second document (---); a configuration is one",
  MULTIPLE_TAGS: "more than one tag (!)",
  NON_STRING_KEY: "a key must be plain text",
  RESOURCE_EXHAUSTION: "nested too deeply",
  TAB_AS_INDENT: "tabs can't indent; use spaces",
  TAG_RESOLVE_FAILED: "an unknown tag (!); a value that begins with ! needs quotes",
  UNEXPECTED_TOKEN: "unexpected text; the value may need quotes around it",
};

/** @param text the whole file; whoever reads it bounds its length */
export function parseYaml(text: string): ParsedYaml {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, stringKeys: true, logLevel: "error" });
  const problem = (offset: number, path: Path, message: string): Problem => {
    const { line, col } = lines.linePos(offset);
    return { path: formatPath(path), line, column: col, message };
  };
  const complaints: readonly (YAMLParseError | YAMLWarning)[] = [...document.errors, ...document.warnings];
  const found = [
    ...complaints.map(({ code, pos }) => problem(pos[0], [], WORDS[code])),
    ...unresolvedAliases(document).map((offset) =>
      problem(offset, [], "an alias (*) without its anchor (&); a value that begins with * needs quotes"),
    ),
  ];
  const distinct = [...new Map(found.map((each) => [`${each.line}:${each.column}:${each.message}`, each])).values()];
  const problems = distinct.slice(0, MOST_PROBLEMS);
  const problemAt: ParsedYaml["problemAt"] = (path, message, at = "value") => problem(placeOf(document, path)[at], path, message);
  if (complaints.some(({ code }) => code !== "DUPLICATE_KEY")) return { value: undefined, problems, problemAt };
  try {
    return { value: document.toJS({ maxAliasCount: MOST_ALIASES }), problems, problemAt };
  } catch (error) {
    if (!(error instanceof ReferenceError)) throw error;
    return { value: undefined, problems: problems.length > 0 ? problems : [problem(0, [], "too many aliases (*)")], problemAt };
  }
}

function unresolvedAliases(document: Document): number[] {
  const offsets: number[] = [];
  visit(document, {
    Alias(_, alias) {
      if (alias.resolve(document) === undefined) offsets.push(alias.range?.[0] ?? 0);
    },
  });
  return offsets;
}

/** Offsets of a key and of its value; they are the same for a key without a value. */
function placeOf(document: Document, path: Path): { key: number; value: number } {
  let node: Node | null = document.contents;
  let key = node?.range?.[0] ?? 0;
  for (const part of path) {
    if (isAlias(node)) node = node.resolve(document) ?? null;
    if (isSeq<Node>(node) && typeof part === "number") {
      node = node.items[part] ?? null;
      key = node?.range?.[0] ?? key;
    } else {
      const pair = isMap<Node, Node | null>(node)
        ? node.items.find((item) => isScalar(item.key) && String(item.key.value) === part)
        : undefined;
      if (pair === undefined) return { key, value: key };
      key = pair.key.range?.[0] ?? key;
      node = pair.value;
    }
  }
  const empty = node === null || (isScalar(node) && node.source === "");
  return { key, value: empty ? key : (node?.range?.[0] ?? key) };
}
