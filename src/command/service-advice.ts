import type { IcapMethod, ServiceInfo } from "../../icap/index.ts";
import { isLoopback } from "../config/addresses.ts";
import type { ConfiguredService } from "./service-options.ts";
import type { TlsFacts } from "./tls-facts.ts";

/** The MD5 of nothing stands in it: what c-icap's virus_scan calls itself when no engine tells it a version. */
const TAG_WITHOUT_ENGINE = "CI0001-1B2M2Y8AsgTpgAmY7PhCfgAA";
const CERTIFICATE_WARNING = 30 * 24 * 60 * 60 * 1000;

export interface ServiceFacts {
  readonly url: string;
  readonly info: ServiceInfo;
  /** Set when the service does this method, and not the one that was asked for. */
  readonly otherMethod?: IcapMethod;
  readonly tls?: TlsFacts | undefined;
  /** What the configuration has it told of who asks. */
  readonly context?: ConfiguredService["context"] | undefined;
}

/** Whether it looks like a c-icap that has no engine, and then passes everything; an engine that does not tell its version looks the same. */
export function seemsWithoutEngine({ isTag }: ServiceInfo): boolean {
  return isTag === TAG_WITHOUT_ENGINE;
}

/** What an operator should know or set, in the order of its weight. `now`: ms since the epoch. */
export function serviceAdvice({ url, info, otherMethod, tls, context }: ServiceFacts, now: number): string[] {
  const advice: string[] = [];
  if (seemsWithoutEngine(info)) {
    advice.push(
      "the ISTag is that of a c-icap without an antivirus engine, which passes everything: probably the engine was not there when c-icap started, so restart c-icap once the engine answers (`icap canary` shows whether it catches anything)",
    );
  }
  if (otherMethod !== undefined) {
    advice.push(`it does ${otherMethod} alone: give --method ${otherMethod} (in the configuration: method: ${otherMethod})`);
  }
  if (info.isTag === undefined)
    advice.push("it gives no ISTag, so nobody can tell when its signatures change; verdicts then hold for their whole time to live");
  if (!info.allow204) advice.push("it does not say Allow: 204, so it may send back every clean file: twice the traffic");
  if (info.preview !== undefined) {
    advice.push(
      `it would like previews of ${info.preview} bytes, by which it may pass a file that it has not seen whole; none are sent unless --preview (in the configuration: preview) says so`,
    );
  }
  if (info.transfer.ignore.length > 0) {
    advice.push(
      "it does not want some types of files (Transfer-Ignore); they are sent to it all the same, unless the configuration says transfer_lists: trusted",
    );
  }
  advice.push(...includeAdvice(info.include, context));
  if (tls === undefined && !isLoopback(url)) advice.push("files travel to it in the clear, decrypted ones too; icaps:// encrypts them");
  if (tls !== undefined && tls.validUntil.getTime() - now < CERTIFICATE_WARNING) {
    advice.push(`its certificate ends on ${tls.validUntil.toISOString().slice(0, 10)}`);
  }
  return advice;
}

/** On fields that it asks for by X-Include: those that it could be told, but is not, and those that nobody can tell it. */
function includeAdvice(include: readonly string[], context: ServiceFacts["context"]): string[] {
  const known = new Map([
    ["x-client-ip", "client_ip"],
    ["x-server-ip", "server_ip"],
    [(context?.user_header ?? "X-Authenticated-User").toLowerCase(), "user"],
  ] as const);
  const untold = include.flatMap((name) => {
    const key = known.get(name);
    return key === undefined || (context !== undefined && context[key] !== "never") ? [] : [{ name, key }];
  });
  const unknown = include.filter((name) => !known.has(name));
  const advice: string[] = [];
  if (untold.length > 0) {
    const names = untold.map(({ name }) => name).join(", ");
    const keys = untold.map(({ key }) => key).join(", ");
    const set =
      context === undefined
        ? "is not, unless the configuration's context says so"
        : "is not, since the configuration's context does not say so";
    advice.push(`it asks to be told ${names} (X-Include); it ${set} (${keys})`);
  }
  if (unknown.length > 0) {
    advice.push(
      `it asks to be told ${unknown.join(", ")} (X-Include), which cannot be told, unless it is where the user's name goes (user_header)`,
    );
  }
  return advice;
}
