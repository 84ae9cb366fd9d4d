/** Room in the spool, for whoever holds what others could use. */
import { GatewayError } from "../errors.ts";
import type { Spool } from "../media/spool.ts";
import type { SpoolPool } from "../media/spool-pool.ts";
import type { Advisers } from "./advisers.ts";
import { Deadline } from "./deadline.ts";

/** Milliseconds. */
const SPOOL_WAIT = 10_000;

/**
 * Room in the spool. Who waits for it holds a slot and a connection, which others could use; so nobody waits for long.
 * @throws GatewayError `no_room`; the signal's reason.
 */
export async function spoolSoon(spools: SpoolPool, capacity: number, signal: AbortSignal, advisers: Advisers): Promise<Spool> {
  const now = spools.tryCreate(capacity);
  if (now !== undefined) return now;
  using time = new Deadline(SPOOL_WAIT, () => new GatewayError("no_room", { detail: "slow readers hold the spool" }), signal);
  const spool = spools.create(capacity, time.signal);
  if (spools.usage().waiting > 0) advisers.giveWay();
  return await spool;
}
