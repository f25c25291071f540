"""Networks: functions of parameters and input.

In training mode a forward pass updates BatchNorm's running statistics; that, and nothing else, it writes.
"""

from mdp.core.networks.clustering import (
    AttentionNetwork,
    Clustered,
    ClusterHeads,
    ClusterNetwork,
    build_attention_network,
    build_cluster_network,
)
from mdp.core.networks.pair import EncoderPair, follow_, make_pair
from mdp.core.networks.segmentor import (
    DatasetClassifier,
    EmbeddingNetwork,
    Grids,
    InstanceNetwork,
    Look,
    NetworkSettings,
    Segmentor,
    TrainedSegmentor,
    build_embedding_network,
    build_instance_network,
    build_segmentor,
    upsample,
)
from mdp.core.networks.transfer import Match, match

__all__ = [
    "AttentionNetwork",
    "ClusterHeads",
    "ClusterNetwork",
    "Clustered",
    "DatasetClassifier",
    "EmbeddingNetwork",
    "EncoderPair",
    "Grids",
    "InstanceNetwork",
    "Look",
    "Match",
    "NetworkSettings",
    "Segmentor",
    "TrainedSegmentor",
    "build_attention_network",
    "build_cluster_network",
    "build_embedding_network",
    "build_instance_network",
    "build_segmentor",
    "follow_",
    "make_pair",
    "match",
    "upsample",
]
