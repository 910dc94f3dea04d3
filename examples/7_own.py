"""Your own network, data and condition: any module, any array, and whatever is known of each row."""

import torch
import diffflow as df

class Net(torch.nn.Module):
    null = -9.0                                       # what it is told for no condition
    def __init__(self, width=64):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(6, width), torch.nn.SiLU(), torch.nn.Linear(width, 2))
    def forward(self, x, t, cond):                    # (n, 2), (n,), (n, 3) -> like x
        return self.layers(torch.cat([x, t[:, None], cond], 1))

c = torch.randn(2000, 3)
data = df.data.of(c[:, :2] + 0.1 * torch.randn(2000, 2)).with_cond(c)
run = df.train(data, "runs/own", net=Net, steps=200)  # later: df.load("runs/own", net=Net)
print(run.sample(4, cond=[1.0, -1.0, 0.0]).last)      # near (1, -1)
