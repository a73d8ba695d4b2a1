"""A run ends with the weights that padded batches, stock transformers and a loop in plain torch lead to."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import BertModel

from mtlrank import prepare, train
from mtlrank.building.datamodule import build_datamodule
from mtlrank.composing.selection import select_tasks
from tests.loop.runs import content, settings
from tests.saved_models import save_random

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own
EPOCHS, LR, DECAY, CLIP = 2, 1e-3, 0.1, 0.5
LAYERS = {"msm_bm25": 1, "msm_ner": 2}
HEADS = ("trec2019", "msm_bm25", "msm_ner")  # read the first token, all tokens and spans, of three depths
WORDS = [
    f"tasks=[{','.join(HEADS)}]",
    "task@datamodule.dataset.datasets.trec2019.task=relevance",
    "model/heads@model.heads.trec2019=cls",
    *(f"model.heads.{name}.pooler.layers=[{layer}]" for name, layer in LAYERS.items()),
    "model.body.dropout=0",
    *(f"model.heads.{name}.dropout=0" for name in HEADS),
    f"datamodule.train_sampler.limits={dict.fromkeys(HEADS, 60)}".replace("'", ""),
    f"training.epochs={EPOCHS}",
    f"loop.optimizer={{lr: {LR}, weight_decay: {DECAY}}}",
    f"trainer.gradient_clip_val={CLIP}",
]


class Plain(nn.Module):
    """The same weights in stock modules: all layers, on padded batches."""

    def __init__(self, backbone, saved):
        super().__init__()
        self.body = BertModel(backbone, add_pooling_layer=False)
        self.heads = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 1)) for name in HEADS}
        )
        self.heads["trec2019"] = nn.Linear(64, 1)
        classes = saved["heads.msm_ner.projection.2.bias"].shape[0]
        self.heads["msm_ner"][2] = nn.Linear(64, classes)
        self.load_state_dict({_plain(name): weight for name, weight in saved.items()})

    def losses(self, name, batch, labels):
        """The loss of each sample; `labels` are the statistics by which numbers are scaled."""
        lengths = batch.cu_seqlens.diff().tolist()
        ids, types, mask = (
            pad_sequence(values.split(lengths), batch_first=True)
            for values in (batch.input_ids, batch.token_type_ids, torch.ones(len(batch.input_ids)))
        )
        states = self.body(ids, mask, types, output_hidden_states=True).hidden_states
        if name == "trec2019":
            logits = self.heads[name](states[-1][:, 0]).squeeze(-1)
            return F.binary_cross_entropy_with_logits(logits, (batch.labels >= 2).float(), reduction="none")
        if name == "msm_bm25":
            average = (states[LAYERS[name]] * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            wanted = (batch.labels - labels["mean"]) / labels["std"]
            return (self.heads[name](average).squeeze(-1) - wanted) ** 2
        losses = [[] for _ in batch.sample_ids]
        for item, sequence in enumerate(batch.item_sequence.tolist()):
            first, end = (batch.spans[item, 0] - batch.cu_seqlens[sequence]).tolist()
            logits = self.heads[name](states[LAYERS[name]][sequence, first:end].mean(0))
            losses[batch.item_sample[item]].append(F.cross_entropy(logits, batch.labels[item].long()))
        return torch.stack([torch.stack(found).mean() for found in losses])


def test_a_run_learns_what_a_plain_loop_learns(data_dir, home, tmp_path):
    """Packed tokens, cut-off layers, the samplers' batches, Lightning and the checkpoints change no weight."""
    chosen = select_tasks(settings(data_dir, tmp_path / "out", *WORDS))
    datasets = prepare.run(chosen)
    save_random(tmp_path / "start", chosen, datasets)
    train.run(settings(data_dir, tmp_path / "out", *WORDS, f"model.start_from={tmp_path / 'start'}"))
    learnt = content(tmp_path / "out")
    start = load_file(tmp_path / "start" / "model.safetensors")

    model = Plain(BertModel.config_class.from_pretrained(tmp_path / "start" / "backbone"), start)
    assert (model.body.config.num_hidden_layers, model.body.config.hidden_dropout_prob) == (3, 0)
    datamodule = build_datamodule(chosen, datasets)
    decayed, others = ([w for w in model.parameters() if (w.ndim > 1) == decays] for decays in (True, False))
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0}]
    optimizer = torch.optim.AdamW(groups, LR)
    steps = EPOCHS * datamodule.num_batches("train")
    rising = round(0.1 * steps)
    rates = [(step + 1) / rising for step in range(rising)] + torch.linspace(1, 0, steps - rising + 1).tolist()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rates[step])
    for epoch in range(EPOCHS):
        datamodule.start_at(epoch)
        for batch in datamodule.train_dataloader():
            losses = [model.losses(name, part, datasets[name].manifest["labels"]) for name, part in batch.tasks.items()]
            torch.cat(losses).mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()

    assert learnt["global_step"] == steps
    found = {_plain(name.removeprefix("model.")): weight for name, weight in learnt["state_dict"].items()}
    before = {_plain(name): weight for name, weight in start.items()}
    for name, weight in model.state_dict().items():
        if not name.endswith("key.bias"):  # has no effect on attention: its gradients are rounding, which Adam blows up
            torch.testing.assert_close(found[name], weight, atol=2e-5, rtol=1e-3, msg=f"{name} differs")
            assert weight.ndim == 1 or (found[name] - before[name]).abs().max() > 100 * 2e-5, name


def _plain(name):
    return name.replace("body.encoder.", "body.").replace(".projection", "")
