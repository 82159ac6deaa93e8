#!/bin/bash
# Score a folder of shards on eight machines of a Slurm cluster:  sbatch slurm.sh
# Change the numbers, the environment and the last command. All machines must see the same paths.
#SBATCH --job-name=tastemaker
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=04:00:00
set -euo pipefail

# A virtual environment with "tastemaker[ray,torch]"
# shellcheck source=/dev/null
source "$HOME/tastemaker/bin/activate"

# Ray runs whatever reaches it, so only who has this token may.
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token

# The first machine runs Ray's own services. The port is another one for each job.
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export RAY_ADDRESS="$head:$((20000 + SLURM_JOB_ID % 10000))"
export RAY_USAGE_STATS_ENABLED=0
export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"

srun --nodes=1 --ntasks=1 --nodelist="$head" \
    ray start --head --port="${RAY_ADDRESS##*:}" --include-dashboard=false --block &
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    # shellcheck disable=SC2016  # each machine has the address in its environment
    srun --nodes="$((SLURM_JOB_NUM_NODES - 1))" --ntasks-per-node=1 --exclude="$head" \
        bash -c 'until ray start --address="$RAY_ADDRESS" --block; do sleep 5; done' &
fi

# A run takes the machines that are there when it begins, so wait for all of them.
count='import ray; ray.init(logging_level="ERROR"); print(sum(node["Alive"] for node in ray.nodes()))'
on_head=(srun --overlap --nodes=1 --ntasks=1 --nodelist="$head")
until [ "$("${on_head[@]}" python -c "$count" | tail -n 1)" = "$SLURM_JOB_NUM_NODES" ]; do sleep 5; done

"${on_head[@]}" tastemaker score /data/shards --output /data/scores --executor xenna
