#!/usr/bin/env bash
# Ten minutes on a GPU: tests marked cuda, benchmarks in their CUDA form, then training of `small` until the time is over.
#
#   OUT=results scripts/gpu_run.sh            from the repository root; every part is skipped that OUT holds already
#   DEVICE=cpu MINUTES=2 OUT=/tmp/dry scripts/gpu_run.sh --set denoiser.batch_size=4 ...     the same parts, tried on a CPU
#
# Needs Python with torch, lightning and what setup.py names; nothing is fetched. Variables:
#   OUT       folder for logs, figures and weights (default gpu_run)
#   MINUTES   of it all, 9.5 by default; TEST_MINUTES (a fifth) and BENCH_MINUTES (two fifths) are parts of it
#   PLANS     of each kind whose times are measured (100)      VIEWS     that are rendered at once (512)
#   DEVICE    cuda, or cpu for a dry run                       PYTHON    interpreter (python3)
#   WHEELS    folder of wheels that the machine lacks, e.g. diffusers; installed beside, without an index
#   RUN       run folder of the training (runs/small), gone on with where it has a checkpoint
#   CONFIG    of the training (config/train_small.yaml)        WORKERS   that make drives (processors less two)
#   INIT      model folder to start from where RUN has no checkpoint (models/small with the CONFIG of small; empty = from
#             nothing)
#   ASSETS    pack of materials for photographed worlds (come-nav assets collect); its models/ are not needed here
#   KEEP      1 = copy the newest checkpoint into OUT as well
# Arguments are handed to come-nav train.
set -uo pipefail
cd "$(dirname "$0")/.."
began=$SECONDS
DEVICE=${DEVICE:-cuda} MINUTES=${MINUTES:-9.5} PYTHON=${PYTHON:-python3} OUT=${OUT:-gpu_run} RUN=${RUN:-runs/small}
CONFIG=${CONFIG:-config/train_small.yaml}
INIT=${INIT-$([ "$CONFIG" = config/train_small.yaml ] && echo models/small)}
TEST_MINUTES=${TEST_MINUTES:-"$MINUTES * 0.21"} BENCH_MINUTES=${BENCH_MINUTES:-"$MINUTES * 0.42"}
STEPS=$([ "$DEVICE" = cpu ] && echo 2 || echo 20) # of training, whose time is measured
processors=$(nproc)
WORKERS=${WORKERS:-$((processors > 3 ? processors - 2 : 1))}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
if [ -n "${WHEELS:-}" ]; then
  "$PYTHON" -m pip install --quiet --no-index --no-deps --find-links "$WHEELS" --target "$OUT/../wheels" "$WHEELS"/*.whl &&
    export PYTHONPATH=$PYTHONPATH:$OUT/../wheels
fi

if [ -n "${ASSETS:-}" ]; then
  export XDG_DATA_HOME=$OUT/data
  mkdir -p "$XDG_DATA_HOME/come_nav" && ln -sfn "$(cd "$ASSETS" && pwd)" "$XDG_DATA_HOME/come_nav/assets"
fi

seconds() { "$PYTHON" -c "print(int(60 * $1))"; }
left() { echo $(($(seconds "$MINUTES") - (SECONDS - began))); }

# part NAME LIMIT_S COMMAND...: run once, its output in OUT/NAME.log, its status in OUT/parts.txt; never longer than LIMIT_S
part() {
  local name=$1 limit=$2 status=0 start=$SECONDS
  shift 2
  if grep -q "^$name: 0 " "$OUT/parts.txt" 2> /dev/null; then return; fi
  timeout --signal=TERM --kill-after=20 "$limit" "$@" > "$OUT/$name.log" 2>&1 || status=$?
  echo "$name: $status after $((SECONDS - start)) s" | tee -a "$OUT/parts.txt"
}

"$PYTHON" - > "$OUT/machine.txt" 2>&1 << 'PY'
import platform, torch
print(platform.platform(), "python", platform.python_version(), "torch", torch.__version__)
print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device")
PY
cat "$OUT/machine.txt"
part tests "$(seconds "$TEST_MINUTES")" env COME_NAV_TEST_DEVICE="$DEVICE" "$PYTHON" -m pytest -q -p no:cacheprovider -m cuda test

each=$(seconds "$BENCH_MINUTES / 7")
part rates "$each" "$PYTHON" benchmarks/plan_rates.py --device "$DEVICE" --plans "${PLANS:-100}" \
  --compile eager graph --out "$OUT/plan_rates.json"
part rendering "$each" "$PYTHON" benchmarks/rendering.py --device "$DEVICE" --views "${VIEWS:-512}" --repeats 3 --out "$OUT/rendering.json"
part profile "$each" "$PYTHON" benchmarks/plan_profile.py --device "$DEVICE" --plans 2 --out "$OUT/profile.json" --flames "$OUT/flames.png"
part simulator "$each" "$PYTHON" benchmarks/simulator.py --device "$DEVICE" --repeats 3 --out "$OUT/simulator.json"
part composition "$each" "$PYTHON" benchmarks/composition_cost.py --device "$DEVICE" --repeats 3 --out "$OUT/composition.json"
part nwm_costs "$each" "$PYTHON" benchmarks/nwm_planning.py --device "$DEVICE" --sizes ${NWM_SIZES:-S XL} --n 2 \
  --out "$OUT/nwm_planning.json"
part data "$each" "$PYTHON" benchmarks/training_data.py --device "$DEVICE" --steps "$STEPS" --worlds 2 --passes 4 --out "$OUT/data.json"

rest=$(($(left) - 60)) # a minute to save and export
if [ "$rest" -lt 20 ]; then
  echo "no time is left to train in: raise MINUTES" | tee -a "$OUT/parts.txt"
  exit 0
fi
if compgen -G "$RUN/*/*.ckpt" > /dev/null; then # a run that goes on began with what it says
  init=$(cat "$RUN/from_init" 2> /dev/null)
else
  init=$INIT
fi
start=()
[ -n "$init" ] && start=(--init "$init" --set denoiser_from=null --set autoencoder_from=null) # it brings both
accelerator=$([ "$DEVICE" = cuda ] && echo gpu || echo cpu)
train=("$PYTHON" -m come_nav train --config "$CONFIG" --out "$RUN" --accelerator "$accelerator" --no-progress
  --set "data.workers=$WORKERS" ${start[@]+"${start[@]}"} "$@")
mkdir -p "$RUN"
echo "$init" > "$RUN/from_init"
timeout -k 40 $((rest + 30)) "${train[@]}" --max-minutes "$("$PYTHON" -c "print($rest / 60)")" > "$OUT/train.log" 2>&1
echo "train: $? after $((SECONDS - began)) s in all" | tee -a "$OUT/parts.txt"
"${train[@]}" --export > "$OUT/export.log" 2>&1
echo "export: $?" | tee -a "$OUT/parts.txt"
model=$(tail -n 1 "$OUT/export.log")
[ -d "$model" ] && rm -rf "$OUT/model" && cp -r "$model" "$OUT/model"
cp -r "$RUN/logs" "$RUN/samples" "$RUN/config.yaml" "$OUT/" 2> /dev/null
if [ "${KEEP:-0}" = 1 ]; then
  for stage in denoiser depth; do
    [ -f "$RUN/$stage/last.ckpt" ] && mkdir -p "$OUT/checkpoints/$stage" && cp "$RUN/$stage/last.ckpt" "$OUT/checkpoints/$stage/"
  done
fi
exit 0
