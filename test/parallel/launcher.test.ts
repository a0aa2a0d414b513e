/** A process's place among those that a launcher started, from the variables that launchers set (ts/parallel/launcher.ts). */
import { describe, expect, it } from "vitest";
import { DEFAULT_PORT, type Environment, launcherPlace } from "../../ts/parallel/launcher.js";

const TORCHRUN: Environment = {
  ...{ RANK: "9", WORLD_SIZE: "16", LOCAL_RANK: "1", LOCAL_WORLD_SIZE: "8", TORCHELASTIC_RUN_ID: "run" },
  ...{ MASTER_ADDR: "head", MASTER_PORT: "4000" },
};
const SLURM: Environment = {
  ...{ SLURM_PROCID: "3", SLURM_STEP_NUM_TASKS: "5", SLURM_LOCALID: "1", SLURM_NODEID: "1", SLURM_JOB_ID: "77", SLURM_STEP_ID: "0" },
  ...{ SLURM_STEP_NODELIST: "gpu[03-05,11],other2", SLURM_STEP_TASKS_PER_NODE: "2(x2),1" },
};
const MPI: Environment = {
  ...{ OMPI_COMM_WORLD_RANK: "2", OMPI_COMM_WORLD_SIZE: "4", OMPI_COMM_WORLD_LOCAL_RANK: "0", OMPI_COMM_WORLD_LOCAL_SIZE: "2" },
  ...{ PMIX_NAMESPACE: "job", MASTER_ADDR: "10.0.0.1" },
};
const LWS: Environment = { LWS_WORKER_INDEX: "1", LWS_GROUP_SIZE: "4", LWS_LEADER_ADDRESS: "flash-0.flash.default" };

describe("a launcher's variables", () => {
  it.each([
    ["torchrun", TORCHRUN, { index: 9, processes: 16, localIndex: 1, localProcesses: 8, address: "head", port: 4000 }],
    ["srun", SLURM, { index: 3, processes: 5, localIndex: 1, localProcesses: 2, address: "gpu03", port: DEFAULT_PORT }],
    ["mpirun", MPI, { index: 2, processes: 4, localIndex: 0, localProcesses: 2, address: "10.0.0.1", port: DEFAULT_PORT }],
    [
      "LeaderWorkerSet",
      LWS,
      { index: 1, processes: 4, localIndex: 0, localProcesses: 1, address: "flash-0.flash.default", port: DEFAULT_PORT },
    ],
  ])("of %s say who this process is", (launcher, env, place) => {
    expect(launcherPlace(env)).toEqual({ ...place, launcher, token: expect.stringMatching(/^[0-9a-f]{64}$/) });
  });

  it.each([
    ["none are set", {}],
    ["there is one process", { RANK: "0", WORLD_SIZE: "1", MASTER_ADDR: "head" }],
    ["there is no step of a Slurm job, only a batch script", { SLURM_PROCID: "0", SLURM_NTASKS: "16", SLURM_JOB_ID: "77" }],
    ["a variable of that name means something else", { RANK: "major" }],
  ])("say nothing where %s", (_, env: Environment) => {
    expect(launcherPlace(env)).toBeUndefined();
  });

  it("put the leader at this host's own address where all processes are on it", () => {
    expect(launcherPlace({ ...TORCHRUN, RANK: "1", WORLD_SIZE: "8" })).toMatchObject({ address: "127.0.0.1", port: 4000 });
  });

  it("leave MASTER_PORT to torchrun's own store where that has it", () => {
    expect(launcherPlace({ ...TORCHRUN, TORCHELASTIC_USE_AGENT_STORE: "True" })?.port).toBe(4001);
  });

  it.each(["0", "65534", "99999"])("refuse MASTER_PORT %s, which leaves no room for the ports behind it", (port) => {
    expect(() => launcherPlace({ ...TORCHRUN, MASTER_PORT: port })).toThrow(/MASTER_PORT: .* is not accepted; give a port from 1 to 65533/);
  });

  it("give all processes of a job the same token, another job another, and the user's own precedence", () => {
    const token = (env: Environment) => launcherPlace(env)?.token;
    expect(token({ ...SLURM, SLURM_PROCID: "0", SLURM_LOCALID: "0", SLURM_NODEID: "0" })).toBe(token(SLURM));
    expect(token({ ...SLURM, SLURM_JOB_ID: "78" })).not.toBe(token(SLURM));
    expect(token({ ...SLURM, LONGCAT_PARALLEL_TOKEN: "mine" })).toBe("mine");
  });

  it.each([
    ["node7", "node7"],
    ["node7,node8", "node7"],
    ["a[1,3]-ib,b", "a1-ib"],
  ])("name the first host of %s", (list, host) => {
    expect(launcherPlace({ ...SLURM, SLURM_STEP_NODELIST: list })?.address).toBe(host);
  });

  it.each([
    [{ ...TORCHRUN, RANK: "x" }, 'RANK: "x" is not accepted; give a whole number, as launchers set it'],
    [{ ...TORCHRUN, RANK: "16" }, "RANK: 16 is not accepted; give a number below WORLD_SIZE, which is 16"],
    [{ ...TORCHRUN, LOCAL_RANK: "8" }, "LOCAL_RANK: 8 is not accepted; give a number below LOCAL_WORLD_SIZE, which is 8"],
    [
      { ...TORCHRUN, LOCAL_RANK: "16", LOCAL_WORLD_SIZE: undefined },
      "LOCAL_RANK: 16 is not accepted; give a number below WORLD_SIZE, which is 16",
    ],
    [{ ...TORCHRUN, LOCAL_WORLD_SIZE: "17" }, "LOCAL_WORLD_SIZE: 17 is not accepted; give at most WORLD_SIZE, which is 16"],
    [{ ...SLURM, SLURM_LOCALID: "2" }, "SLURM_LOCALID: 2 is not accepted; give a number below SLURM_STEP_TASKS_PER_NODE, which is 2"],
    [{ ...LWS, LWS_WORKER_INDEX: "4" }, "LWS_WORKER_INDEX: 4 is not accepted; give a number below LWS_GROUP_SIZE, which is 4"],
    [{ ...MPI, MASTER_ADDR: undefined }, "MASTER_ADDR: is missing; give the host of process 0 of the 4 that mpirun started"],
  ])("that make no sense are refused by name", (env: Environment, message) => {
    expect(() => launcherPlace(env)).toThrow(expect.objectContaining({ code: "OPTION_INVALID", message }));
  });

  it.each(["127.0.0.1", "localhost", "::1"])("that put all processes on one host by its own address %s have to say so", (address) => {
    const env = { RANK: "1", WORLD_SIZE: "2", MASTER_ADDR: address };
    const message =
      `MASTER_ADDR: ${address} is this host alone, and by LOCAL_WORLD_SIZE (without it: LOCAL_RANK + 1) 1 of 2 processes run here; ` +
      "where all do, give each LOCAL_WORLD_SIZE=2, and its number as LOCAL_RANK";
    expect(() => launcherPlace(env)).toThrow(expect.objectContaining({ code: "OPTION_INVALID", message }));
    expect(launcherPlace({ ...env, LOCAL_RANK: "1", LOCAL_WORLD_SIZE: "2" })).toMatchObject({ localIndex: 1, localProcesses: 2 });
  });
});
