"""The base model and its LoRA adapters.

base_folder.py   checks what a model folder must hold, without torch
checkpoint.py    its safetensors files: which there are, and their headers
samples.py       the fingerprint of weights that may have 100 GB
completeness.py  whether a checkpoint has every weight of its model; every load is checked here
loading.py       loads by transformers and their reports; a load of names and shapes without values
inspecting.py    that load before anything trains, in a process of its own
base.py          loading: precision, NF4, device
positions.py     how many positions a base has; refuses rows that are longer
gpu.py           whether torch can use the GPU that this process was given
causality.py     whether a token is predicted from those before it alone
resident.py      the base as first loaded, restored after every trial
targets.py       attention, mlp, all-linear or a list, to module names that exist
tensor_adapters.py  which settings PEFT refuses for tensors that hold all experts of a layer
reach.py         which layers adapters can be put on, found out and checked before anything trains
kernels.py       which attention kernel transformers takes for a base
parts.py         which part of a model each module is: language, vision, audio; attention, mlp, experts, router
passage.py       which linear layers learn from a row of text
lora.py          LoraConfig from the settings
adapter_files.py an adapter on disk, replaced in one rename
companions.py    what belongs beside an adapter: tokenizer, chat template, processor, generation config
counting.py      trainable and total parameters, right for 4-bit weights too
memory.py        how much memory training needs, from a config and the headers of files
tower_memory.py  how much memory images take beside their tokens
experts.py       how many experts a config names, and in which layers
stored.py        the parameters in a base's files, by their headers
summary.py       a base in a few words, by its config and its files' headers
describing.py    a base without its weights: its parts, and what an adapter sits on
remarks.py       sentences on settings that surprise, and those that cannot work
looking.py       what is shown of a base before anything trains
merging.py       an adapter merged into its base, as a model folder of its own
"""
