#!/usr/bin/env bash
# One machine of a SLURM cluster. Requeues itself when its time is over or it is preempted, and goes on where it was.
#
#   sbatch accelerate_configs/slurm_one_node.sh --pdb_path my_structures --use_discrete_diffusion --epochs 100
#
# All options after the file name go to train_accelerate.py. Change: the #SBATCH lines below, for the number of GPUs
# (ntasks-per-node and gpus-per-node alike), the time limit, partition and account; the line that loads your software.
#
# SLURM starts one process per GPU itself. No launcher stands in between, so the signal before the time limit and the
# one at a preemption reach the trainers directly; they commit a checkpoint and end with status 75.
#SBATCH --job-name=protein_model
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -uo pipefail

# Load your software here, for example: source "$HOME/venvs/protein_model/bin/activate"

cd "${SLURM_SUBMIT_DIR:-.}" || exit 2
export MASTER_ADDR=127.0.0.1
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"

# $-variables in single quotes are set by SLURM for each process.
# shellcheck disable=SC2016
srun bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
    exec python train_accelerate.py --mixed_precision bf16 --resume_from latest "$@"
' train "$@"
status=$?

# 138: the signal before the time limit came before the processes had found each other, and ended them.
if [ "$status" -eq 75 ] || [ "$status" -eq 138 ]; then
    echo "stopped by a signal with everything saved; requeued"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
