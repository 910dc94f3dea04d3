"""Exact likelihood."""

import diffflow as df

q, s = df.TOYS["moons"](), df.EDM()
x = q.sample(16)
value = df.log_prob(df.at(s, s.score(q), churn=1.0), x, trace=df.Exact()).value
print((value - q.noised(1.0, s.sigma_min).log_prob(x)).abs().max())      # solver tolerance
print(df.log_prob(df.at(s, s.score(q)), x, trace=df.Hutchinson(4)).stderr)
