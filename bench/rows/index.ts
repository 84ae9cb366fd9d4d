/** All rows, in the order in which they are measured. */
import type { Group } from "../row.ts";
import { cold } from "./cold.ts";
import { repeated } from "./repeated.ts";

export const GROUPS: readonly Group[] = [cold, repeated];
