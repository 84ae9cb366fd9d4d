/** What may stand where the configuration wants a URL or an address. Each check returns what is wrong, or undefined. */
import { isIP } from "node:net";

/** An ICAP service: `icap://host[:port]/service[?options]`, or `icaps://` for TLS. */
export function icapUrlProblem(text: string): string | undefined {
  return urlProblem(text, ["icap:", "icaps:"], "icap://host:1344/service");
}

/** Where requests go to: no credentials, query or fragment, since paths are appended to it. */
export function homeserverUrlProblem(text: string): string | undefined {
  const problem = urlProblem(text, ["http:", "https:"], "https://matrix.example.com");
  if (problem !== undefined) return problem;
  return new URL(text).search === "" ? undefined : "must not have a query";
}

/** An HTTP proxy; the URL may hold its user name and password. */
export function proxyUrlProblem(text: string): string | undefined {
  return urlProblem(text, ["http:", "https:"], "http://proxy.example.com:3128", true);
}

export function redisUrlProblem(text: string): string | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url !== undefined && url.password !== "") return "must not hold a password: put it into a file and name that in password_path";
  const problem = urlProblem(text, ["redis:", "rediss:"], "redis://127.0.0.1:6379", true);
  if (problem !== undefined || url === undefined) return problem;
  return /^\/?\d{0,4}$/.test(url.pathname) && url.search === ""
    ? undefined
    : "may have the number of a database behind its port, and nothing else";
}

/** `192.0.2.1`, `2001:db8::/32` … */
export function networkProblem(text: string): string | undefined {
  const [address = "", prefix, ...rest] = text.split("/");
  const family = isIP(address);
  const bits = family === 4 ? 32 : 128;
  const prefixFits = prefix === undefined || (/^\d{1,3}$/.test(prefix) && Number(prefix) <= bits);
  return family !== 0 && !address.includes("%") && prefixFits && rest.length === 0
    ? undefined
    : "must be an IP address or a network such as 10.0.0.0/8";
}

/** Whether what is sent to this URL stays on this machine. */
export function isLoopback(url: string): boolean {
  const host = new URL(url).hostname.toLowerCase();
  return host === "localhost" || host === "[::1]" || (isIP(host) === 4 && host.startsWith("127."));
}

/** The texts never quote the URL: it may hold a password, however malformed it is. */
function urlProblem(text: string, protocols: readonly string[], example: string, credentials = false): string | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !protocols.includes(url.protocol) || url.hostname === "") return `must be a URL such as ${example}`;
  if (!credentials && (url.username !== "" || url.password !== "")) return "must not hold a user name or password";
  return url.hash === "" ? undefined : "must not have a fragment (#)";
}
