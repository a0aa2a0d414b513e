/**
 * What a cluster's launcher has told this process by environment variables: its place among the processes of one group. There is no cluster
 * manager of our own.
 * @module
 */

import { createHash } from "node:crypto";
import { invalid } from "../checks.js";
import { LongcatError } from "../errors.js";

/** One of several processes that a launcher started for one group. Each has ranks / processes ranks. */
export interface LauncherPlace {
  /** Its number, and how many there are. The leader is number 0. */
  index: number;
  processes: number;
  /** Its number among those of its host, and how many there are. */
  localIndex: number;
  localProcesses: number;
  /** Where the leader listens: for control there, and on several hosts for requests at the next port. */
  address: string;
  port: number;
  /** What ranks and leader prove to each other that they know. */
  token: string;
  /** Who started the processes, for messages. */
  launcher: string;
}

/** Whether all processes are on this host. */
export function isOneHost(place: Pick<LauncherPlace, "processes" | "localProcesses"> | undefined): boolean {
  return place === undefined || place.localProcesses === place.processes;
}

/** Variables by name, as `process.env` has them. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Where the leader listens if no variable says so. */
export const DEFAULT_PORT = 29_517;

/** LONGCAT_PARALLEL_TOKEN: a secret that all processes of a group share. */
export const TOKEN_VARIABLE = "LONGCAT_PARALLEL_TOKEN";

/** What a launcher says, but for what all may say in the same variables. */
interface Found extends Pick<LauncherPlace, "index" | "processes" | "localIndex" | "localProcesses" | "launcher"> {
  /** Host of process 0; absent: MASTER_ADDR has to say. */
  address?: string;
  /** What tells this run from others on the same hosts. */
  job: string | undefined;
}

/**
 * This process's place. undefined: it was started alone.
 *
 * @throws LongcatError OPTION_INVALID: a variable makes no sense, or the leader's address is missing
 */
export function launcherPlace(env: Environment = process.env): LauncherPlace | undefined {
  for (const find of [torchrun, openMpi, slurm, leaderWorkerSet]) {
    const found = find(env);
    if (found !== undefined && found.processes > 1) return placeOf(found, env);
  }
  return undefined;
}

function placeOf({ job, address, ...found }: Found, env: Environment): LauncherPlace {
  const { index, processes, localIndex, localProcesses, launcher } = found;
  if (index >= processes || localIndex >= localProcesses || localProcesses > processes)
    throw new LongcatError(
      "OPTION_INVALID",
      `${launcher}: process ${index} of ${processes}, ${localIndex} of ${localProcesses} on this host, is impossible`,
    );
  const leader = isOneHost(found) ? "127.0.0.1" : (env["MASTER_ADDR"] ?? address);
  if (leader === undefined)
    throw new LongcatError(
      "OPTION_INVALID",
      `MASTER_ADDR: is missing; give the host of process 0 of the ${processes} that ${launcher} started`,
    );
  const port = portOf(env);
  const token = env[TOKEN_VARIABLE] || createHash("sha256").update(`${launcher} ${job} ${leader} ${port}`).digest("hex");
  return { ...found, address: leader, port, token };
}

/** The port beside MASTER_PORT where torchrun's own store has that. */
function portOf(env: Environment): number {
  const port = number(env, "MASTER_PORT");
  if (port === undefined) return DEFAULT_PORT;
  return env["TORCHELASTIC_USE_AGENT_STORE"] === "True" ? port + 1 : port;
}

/** torchrun, and whatever sets the variables of torch.distributed. */
function torchrun(env: Environment): Found | undefined {
  const place = numbers(env, "RANK", "WORLD_SIZE");
  if (place === undefined) return undefined;
  const localIndex = number(env, "LOCAL_RANK") ?? 0;
  const localProcesses = number(env, "LOCAL_WORLD_SIZE") ?? localIndex + 1;
  return { ...place, localIndex, localProcesses, launcher: "torchrun", job: env["TORCHELASTIC_RUN_ID"] };
}

function openMpi(env: Environment): Found | undefined {
  const place = numbers(env, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE");
  if (place === undefined) return undefined;
  const localIndex = number(env, "OMPI_COMM_WORLD_LOCAL_RANK") ?? 0;
  const localProcesses = number(env, "OMPI_COMM_WORLD_LOCAL_SIZE") ?? localIndex + 1;
  return { ...place, localIndex, localProcesses, launcher: "mpirun", job: env["PMIX_NAMESPACE"] ?? env["OMPI_MCA_ess_base_jobid"] };
}

/** A step that srun started. A batch script alone has SLURM_NTASKS too, and is one process. */
function slurm(env: Environment): Found | undefined {
  const place = numbers(env, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS");
  if (place === undefined) return undefined;
  const localIndex = number(env, "SLURM_LOCALID") ?? 0;
  const tasks = tasksPerNode(env["SLURM_STEP_TASKS_PER_NODE"] ?? "");
  const localProcesses = tasks[number(env, "SLURM_NODEID") ?? 0] ?? localIndex + 1;
  const address = firstHost(env["SLURM_STEP_NODELIST"] ?? "");
  const job = `${env["SLURM_JOB_ID"]}.${env["SLURM_STEP_ID"]}`;
  return { ...place, localIndex, localProcesses, ...(address && { address }), launcher: "srun", job };
}

/** Kubernetes' LeaderWorkerSet: one process a pod. */
function leaderWorkerSet(env: Environment): Found | undefined {
  const place = numbers(env, "LWS_WORKER_INDEX", "LWS_GROUP_SIZE");
  const address = env["LWS_LEADER_ADDRESS"];
  if (place === undefined) return undefined;
  return { ...place, localIndex: 0, localProcesses: 1, ...(address && { address }), launcher: "LeaderWorkerSet", job: address };
}

/** "2(x3),1" → [2, 2, 2, 1]. */
function tasksPerNode(list: string): number[] {
  return list.split(",").flatMap((part) => {
    const match = /^(\d+)(?:\(x(\d+)\))?$/.exec(part);
    return match ? new Array<number>(Number(match[2] ?? 1)).fill(Number(match[1])) : [];
  });
}

/** "node[03-05,9]-ib,other1" → "node03-ib"; undefined for "". */
function firstHost(list: string): string | undefined {
  const match = /^([^[,]+)(?:\[(\d+)[^\]]*\]([^,[]*))?/.exec(list);
  return match?.slice(1).join("");
}

/** A process's number and how many there are; undefined where the two are not both set. */
function numbers(env: Environment, index: string, processes: string): { index: number; processes: number } | undefined {
  if (!env[index] || !env[processes]) return undefined;
  return { index: number(env, index) as number, processes: number(env, processes) as number };
}

/** A variable's number; undefined where it is not set. */
function number(env: Environment, name: string): number | undefined {
  const value = env[name];
  if (value === undefined || value === "") return undefined;
  if (!/^\d{1,9}$/.test(value)) throw invalid(name, value, "a whole number, as launchers set it");
  return Number(value);
}
