"""Use a run."""

import diffflow as df

run = df.load("runs/moons")
x = run.sample(500, steps=20, churn=0.5, noise=df.Noise(7)).last        # particle i is the same in any batch
print(df.TOYS["moons"]().log_prob(x).mean())
z = run.encode(x).to(run.device)                                        # the equation lives in model units
print(run.sde(churn=1.0).drift(z, 0.5))
print(run.log_prob(x[:4]).value)
