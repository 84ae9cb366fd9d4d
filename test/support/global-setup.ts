import { machine } from "./peers/choose-machine.ts";

/** Once before all tests: gets c-icap, ClamAV, e2guardian and Redis, so that no two workers install them. Tests that don't need them run without. */
export default async function setup(): Promise<void> {
  try {
    await machine();
  } catch (error) {
    console.warn(error instanceof Error ? error.message : error);
  }
}
