"""Settings: what exactly is trained, and how, as one tree of frozen dataclasses of plain values.

The same tree is the Python API, the YAML file and the command line. Precedence: preset < file < flags. One class per
family of models (`TrainConfig`'s subclasses), each in the file of its family.
"""
