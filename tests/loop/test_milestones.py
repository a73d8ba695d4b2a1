"""What a validation measures."""

from statistics import fmean

import pytest

from mtlrank import evaluate, train
from mtlrank.storage import read_json
from tests.loop.runs import settings
from tests.saved_models import settings as settings_of

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own


def test_a_validation_on_few_queries_measures_what_judging_finds_of_these_queries(data_dir, tmp_path, datasets):
    few = ["training.max_val_queries=7", "training.eval_batch_size=8", "training.epochs=1", "tasks=[trec2019]"]
    prepared = {"trec2019": data_dir / "trec2019"}
    limits = "datamodule.train_sampler.limits={trec2019: 60}"
    found = train.run(settings(data_dir, tmp_path / "run", *few, limits), prepared)
    evaluate.run(settings_of("evaluate", model_dir=tmp_path / "run" / "model", split="val"), prepared)
    folder = tmp_path / "run" / "evaluation-val" / "trec2019"
    assert read_json(folder / "metrics.json")["num_queries"] == 50
    drawn = {qrel.query_id for qrel in datasets["trec2019"].split("val").part(7).qrels()}
    lines = [line.split("\t") for line in (folder / "per_query.tsv").read_text().splitlines()[1:]]
    values = [float(value) for query_id, measure, value, _ in lines if measure == "nDCG@10" and query_id in drawn]
    assert len(values) == 7
    assert found["val/trec2019/nDCG@10"] == pytest.approx(fmean(values), abs=1e-5)
