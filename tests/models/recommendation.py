"""A recommendation model in the shape of DLRM (Naumov and others, 2019)."""

from __future__ import annotations

import torch
from torch import nn

Built = tuple[nn.Module, dict[str, torch.Tensor]]
# (batch, tables, rows of a table, width of an embedding, indices in a bag)
SHAPES = {"tiny": (4, 8, 16, 8, 2), "test": (32, 8, 200, 32, 4), "bench": (256, 8, 10000, 64, 8)}


class DLRM(nn.Module):
    """Dense features through an MLP, categories through summed embeddings, pairwise products, an MLP."""

    def __init__(self, tables: int, rows: int, width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(rows, width) for _ in range(tables))
        self.bottom = nn.Sequential(
            nn.Linear(13, 4 * width), nn.ReLU(), nn.Linear(4 * width, width), nn.ReLU()
        )
        pairs = (tables + 1) * tables // 2
        self.top = nn.Sequential(
            nn.Linear(pairs + width, 4 * width), nn.ReLU(), nn.Linear(4 * width, 1), nn.Sigmoid()
        )
        rows_i, columns_i = torch.tril_indices(tables + 1, tables + 1, offset=-1)
        self.register_buffer("rows", rows_i)
        self.register_buffer("columns", columns_i)

    def forward(self, dense: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        x = self.bottom(dense)
        bags = [table(categories[:, number]).sum(dim=1) for number, table in enumerate(self.tables)]
        features = torch.stack([x, *bags], dim=1)
        products = torch.bmm(features, features.transpose(1, 2))
        result: torch.Tensor = self.top(torch.cat([x, products[:, self.rows, self.columns]], dim=1))
        return result.squeeze(1)


def dlrm(size: str) -> Built:
    """DLRM-like click prediction."""
    batch, tables, rows, width, bag = SHAPES[size]
    categories = torch.randint(0, rows, (batch, tables, bag))
    return DLRM(tables, rows, width), {"dense": torch.randn(batch, 13), "categories": categories}
