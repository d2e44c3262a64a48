# A race between architectures: trained in rounds, after each of which the better half goes on; the best of the last is the result.
# Within the first round more are chosen, by what those tell that are already trained.


include: "functions/race.smk"


rule learn_entrants:
    input:
        supernet=in_supernet("supernet.pt"),
        table=latency_table,
        others=other_tables,
        networks=first_networks,
    output:
        f"{RESULTS}/race/{{search}}/learned.tsv",
    log:
        f"{RESULTS}/logs/learn_entrants/{{search}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/learn_entrants/{{search}}.tsv"
    conda:
        "../envs/fbnet.yaml"
    params:
        **program("learn_entrants.py"),
        options=[f"--count={LEARNED}", "--rules", *RACE["rules"]],
        budget=budget_options,
    shell:
        "{params.run} --supernet {input.supernet:q} --table {input.table:q} --trained {input.networks:q}"
        " {params.options:q} {params.budget[options]:q} --name {wildcards.search}"
        " --out {output:q} --log {log:q}"


rule train_entrant:
    input:
        arrays=ancient(rules.train_supernet.input.arrays),
        data=rules.download_cifar.output.description,
        architectures=entrants_of_round,
        supernet=start_of_round,
        among=networks_before,
    output:
        # The checkpoint and tensorboard/ beside them are no outputs: Snakemake would delete those after a failure.
        network=f"{RESULTS}/race/{{search}}/round_{{round}}/{{place}}/network.pt",
        history=f"{RESULTS}/race/{{search}}/round_{{round}}/{{place}}/history.tsv",
    log:
        f"{RESULTS}/logs/train_entrant/{{search}}.round_{{round}}.{{place}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_entrant/{{search}}.round_{{round}}.{{place}}.tsv"
    conda:
        "../envs/fbnet.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=CONFIG["train"]["gpu"],
    params:
        **program("train_architecture.py"),
        space=json_of(SPACE.definition),
        architecture=entrant_options,
        settings=round_settings,
        seed=round_seed,
        data=lambda wildcards, input: Path(input.data).parent,
        supernet=file_option("supernet", "supernet"),
        out=lambda wildcards, output: Path(output.network).parent,
        checkpoint_minutes=untracked(CONFIG["checkpoint_minutes"]),
    shell:
        "{params.run} {params.architecture:q} --space {params.space:q} --data {params.data:q}"
        " --settings {params.settings:q} --seed {params.seed} {params.supernet:q} --threads {threads}"
        " --checkpoint-minutes {params.checkpoint_minutes} --out {params.out:q} --log {log:q}"


rule finish_race:
    input:
        entrants=all_entrants,
        networks=lambda wildcards: [path for number, _ in enumerate(FIELDS, 1) for path in networks_of_round(wildcards, number)],
    output:
        architectures=f"{RESULTS}/architectures/{{search}}.tsv",
        standing=f"{RESULTS}/race/{{search}}/race.tsv",
        network=f"{RESULTS}/race/{{search}}/network.pt",
    log:
        f"{RESULTS}/logs/finish_race/{{search}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/finish_race/{{search}}.tsv"
    group:
        "architectures"
    conda:
        "../envs/fbnet.yaml"
    resources:
        **node_resources(),
    params:
        **program("finish_race.py"),
        rounds=round_options,
    shell:
        "{params.run} --entrants {input.entrants:q} {params.rounds:q} --name {wildcards.search}"
        " --out {output.architectures:q} --standing {output.standing:q} --network {output.network:q} --log {log:q}"
