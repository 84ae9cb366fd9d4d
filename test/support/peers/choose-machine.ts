import { containerEngineAnswers, startContainer } from "./container-machine.ts";
import { startLocalMachine } from "./local-machine.ts";
import type { Machine } from "./machine.ts";
import { ensurePackages } from "./packages.ts";

let chosen: Promise<Machine> | undefined;

/**
 * A container where a Docker engine answers, else this machine with Debian's packages; one for each test process.
 * `MIG_TEST_PEERS=packages` keeps a Docker engine out of it.
 */
export function machine(): Promise<Machine> {
  chosen ??= choose();
  return chosen;
}

async function choose(): Promise<Machine> {
  if (process.env["MIG_TEST_PEERS"] !== "packages" && (await containerEngineAnswers())) return startContainer();
  await ensurePackages();
  return startLocalMachine();
}
