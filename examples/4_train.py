"""Train."""

import diffflow as df

run = df.train("moons", "runs/moons", steps=200, settings={"model.net.width": 64})     # or minutes=5; or your own folder of images
print(run.config.fit, run.step, run.sample(5).last)
run = df.train("moons", "runs/moons", steps=210, resume=True)
config = df.replace(run.config, {"model.form": "v", "fit.steps": 20})                   # settings are values, and a start too
print(df.train(config, "runs/moons-v").metrics()[-1:])
