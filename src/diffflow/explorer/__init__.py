"""The explorer: a page that shows the equation at work, and plays real runs.

static/      the page. Its exact part needs no server: put the folder on any web host
server.py    what `diffflow explore` serves: the page, and an interface to the runs of a folder
guard.py     who may ask: this machine's own browser, with the token, in messages of a bearable size
jobs.py      one thread that draws samples, a short queue before it, and a way to stop
"""
