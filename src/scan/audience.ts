/** Who asks, as far as a scanner is told of it: its verdict then holds for that asker alone. */
import type { Identity, ScanContext, Scanner, ScanSubject } from "./scanner.ts";

const VALUE = {
  client_ip: "clientAddress",
  server_ip: "serverAddress",
  user: "user",
} as const satisfies Record<Identity, keyof ScanContext>;

/** The values of these identities, in a form in which no two askers look alike; empty when there are no identities. */
export function audienceOf(identities: readonly Identity[], context: ScanContext | undefined): string {
  if (identities.length === 0) return "";
  return JSON.stringify([...new Set(identities)].toSorted().map((identity) => [identity, context?.[VALUE[identity]] ?? null]));
}

/** The subject as this scanner gets it: what its verdicts do not count by, it is not told. */
export function contextFor({ identities }: Scanner, subject: ScanSubject): ScanSubject {
  if (subject.context === undefined) return subject;
  const { context, ...rest } = subject;
  if (identities.length === 0) return rest;
  const told = identities.map((identity) => VALUE[identity]).filter((name) => context[name] !== undefined);
  return { ...rest, context: Object.fromEntries(told.map((name) => [name, context[name]])) };
}
