"""ODE and SDE are one family."""

import diffflow as df

q, s = df.TOYS["8gaussians"](), df.EDM()              # a law with exact answers, a noise schedule
for churn in (0.0, 0.5, 1.0, 2.0):                    # probability flow ... reverse SDE ... over-damped
    sde = df.at(s, s.score(q), churn=churn)
    x = df.sample(sde, 2000, steps=20).last           # 20 evaluations of the score
    print(churn, q.log_prob(x).mean(), q.log_prob(q.sample(2000)).mean())
