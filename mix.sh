. /tmp/w/extend-scratch/env.sh
s=$(date +%s)
timeout 550 $M train --config-dir my_conf experiment=mymix model.body.backbone=$MINILM model.body.frozen_layers=3 loop/loss=geometric loop/optimizer=mine loop/schedule=stairs datamodule/sampler@datamodule.train_sampler=alternating training.epochs=1 training.checkpoint_steps=3 +trainer.limit_train_batches=12 "$@" 2>&1 | tail -40 | cut -c1-300; echo rc=${PIPESTATUS[0]} $(( $(date +%s)-s ))s
