"""What Guide-Space remembers of the faces themselves: which forgery each is of, and which cluster it fell into (Guo et
al., ICCV 2023, Section 3.4).

The paper clusters all images once before training. In a stream the clusters are made anew at each experience's start,
from the faces at hand; faces that are no longer at hand follow their old cluster's centre. The future is never seen.
Axes: N faces at hand, F features to cluster, R rows of the run's face table, k clusters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffd_continual.replay.clusters import fit_clusters, follow_clusters
from ffd_continual.strategies.learners.guide_embeddings import accept_shapes
from ffd_continual.strategies.learners.self_supervised import Encoded


class FaceClusters(nn.Module):
    """Forgery and cluster of every face met, by its row of the face table; -1 where not known. All of it buffers."""

    domain: Tensor
    cluster: Tensor
    centres: Tensor
    _GROWING = ("domain", "cluster", "centres")

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("domain", torch.zeros(0, dtype=torch.int64))  # (R,)
        self.register_buffer("cluster", torch.zeros(0, dtype=torch.int64))  # (R,)
        self.register_buffer("centres", torch.zeros(0, 0))  # (k, F)

    def note(self, rows: Tensor, forgery: Tensor) -> None:
        """Remember the domains (B,) of faces."""
        more = int(rows.max()) + 1 - len(self.domain)
        if more > 0:
            self.domain = F.pad(self.domain, (0, more), value=-1)
            self.cluster = F.pad(self.cluster, (0, more), value=-1)
        self.domain[rows] = forgery

    def make(self, faces: Encoded, clusters: int, least: int) -> None:
        """Cluster faces (N, F) anew; other rows follow their old cluster's centre. torch's generator seeds k-means."""
        features = faces.features.float().cpu().numpy()
        centres, found = fit_clusters(features, clusters, int(torch.randint(2**31 - 1, ())), points_per_cluster=least)
        if len(self.centres):
            moved = torch.from_numpy(follow_clusters(self.centres.cpu().numpy(), centres)).to(self.cluster.device)
            self.cluster = torch.where(self.cluster >= 0, moved[self.cluster.clamp_min(0)], self.cluster)
        self.cluster[faces.row] = torch.from_numpy(found).to(self.cluster.device)
        self.centres = torch.from_numpy(centres).to(self.cluster.device)

    def __len__(self) -> int:
        return int((self.domain >= 0).sum())

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        accept_shapes(self, self._GROWING, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
