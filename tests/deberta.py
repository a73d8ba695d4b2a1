"""Small DeBERTas."""

from transformers import DebertaV2Config


def deberta(**settings):
    """The config of a DeBERTa-v3, whose few buckets of distances short texts fill."""
    of_v3 = {
        "relative_attention": True,
        "position_biased_input": False,
        "pos_att_type": "p2c|c2p",
        "position_buckets": 4,
        "max_position_embeddings": 40,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
    }
    return DebertaV2Config(**{**of_v3, **settings})
