. /tmp/w/extend-scratch/env.sh
cmd() { exec $PY -m mtlrank.train --config-dir my_conf experiment=mymix model.body.backbone=$MINILM model.body.frozen_layers=3 loop/loss=geometric loop/optimizer=mine loop/schedule=stairs datamodule/sampler@datamodule.train_sampler=alternating training.epochs=1 training.checkpoint_steps=3 +trainer.limit_train_batches=12 output_dir=runs/mixk test=false; }
(cmd) > kill.log 2>&1 & P=$!
for i in $(seq 200); do sleep 0.5; ls runs/mixk/checkpoints/ 2>/dev/null | grep -q . && break; done
sleep 3; ls runs/mixk/checkpoints; kill -9 $P; wait $P; echo killed rc=$?; tail -3 kill.log | cut -c1-200
(cmd) 2>&1 | tail -4 | cut -c1-300
python3 - <<'P'
import hashlib,glob
for r in ("mix","mixk"):
    for f in sorted(glob.glob(f"runs/{r}/model/*.safetensors")): print(f, hashlib.sha256(open(f,"rb").read()).hexdigest()[:16])
P
