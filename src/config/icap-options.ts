import type { IcapServiceOptions, IcapTls } from "../../icap/index.ts";
import type { Config } from "./schema.ts";

/** How the ICAP client is to speak to each replica of a configured service, in the order of its `urls`. */
export function icapOptions(service: Config["icap"][number]): IcapServiceOptions[] {
  const { method, preview, tls, username, password } = service;
  return service.urls.map((url) => ({
    url,
    profile: service.profile,
    blockedBy: service.blocked_headers,
    fields: Object.entries(service.headers),
    maxConnections: service.max_connections,
    maxWaiting: service.max_waiting,
    transferLists: service.transfer_lists,
    timeouts: {
      connect: service.connect_timeout,
      write: service.write_timeout,
      answer: service.answer_timeout,
      idle: service.idle_timeout,
      total: service.total_timeout,
    },
    ...(method === undefined ? {} : { method }),
    ...(preview === undefined ? {} : { preview }),
    ...(tls !== undefined && /^icaps:/i.test(url) ? { tls: tlsOptions(tls) } : {}),
    ...(username !== undefined && password !== undefined ? { credentials: { username, password } } : {}),
  }));
}

function tlsOptions({
  ca,
  cert,
  key,
  server_name: serverName,
  min_version: minVersion,
}: NonNullable<Config["icap"][number]["tls"]>): IcapTls {
  return {
    minVersion,
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(serverName === undefined ? {} : { serverName }),
  };
}
