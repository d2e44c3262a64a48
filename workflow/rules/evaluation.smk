# Evidence: derived architectures and what they are compared with, trained from scratch, measured, and reported.


include: "functions/evaluation.smk"


# What a rule chooses within a latency budget, random architectures within it, or the published ones that the space can express.
rule sample_baseline:
    input:
        table=latency_table,
        others=tables_beside,
        architectures=model_of_baseline,
    output:
        f"{RESULTS}/architectures/{{baseline}}.tsv",
    log:
        f"{RESULTS}/logs/sample_baseline/{{baseline}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/sample_baseline/{{baseline}}.tsv"
    group:
        "architectures"
    conda:
        "../envs/fbnet.yaml"
    resources:
        **node_resources(),
    params:
        **program("sample_baseline.py"),
        space=json_of(SPACE.definition),
        classes=CLASSES,
        choice=baseline_options,
        like=file_option("architectures", "architectures"),
    shell:
        "{params.run} --table {input.table:q} --space {params.space:q} --classes {params.classes}"
        " {params.choice[options]:q} {params.like:q} --name {wildcards.baseline} --out {output:q} --log {log:q}"


rule train_architecture:
    input:
        arrays=ancient(rules.train_supernet.input.arrays),
        data=rules.download_cifar.output.description,
        architectures=architectures_of_network,
        supernet=start_of_network,
        teacher=teacher_of_network,
    output:
        # The checkpoint and tensorboard/ beside them are no outputs: Snakemake would delete those after a failure.
        network=f"{RESULTS}/training/{{network}}/seed_{{seed}}/network.pt",
        history=f"{RESULTS}/training/{{network}}/seed_{{seed}}/history.tsv",
    log:
        f"{RESULTS}/logs/train_architecture/{{network}}.seed_{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_architecture/{{network}}.seed_{{seed}}.tsv"
    conda:
        "../envs/fbnet.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=CONFIG["train"]["gpu"],
    params:
        **program("train_architecture.py"),
        space=json_of(SPACE.definition),
        architecture=architecture_options,
        settings=json_of(CONFIG["train"]),
        data=lambda wildcards, input: Path(input.data).parent,
        architectures=file_option("architectures", "architectures"),
        supernet=file_option("supernet", "supernet"),
        teacher=file_option("teacher", "teacher"),
        out=lambda wildcards, output: Path(output.network).parent,
        checkpoint_minutes=untracked(CONFIG["checkpoint_minutes"]),
    shell:
        "{params.run} --name {wildcards.network} {params.architectures:q} {params.architecture:q} --space {params.space:q} --data {params.data:q}"
        " --settings {params.settings:q} --seed {wildcards.seed} {params.supernet:q} {params.teacher:q} --threads {threads}"
        " --checkpoint-minutes {params.checkpoint_minutes} --out {params.out:q} --log {log:q}"


# A network as the training run left it that validates best: snakemake results/trained/fbnet.onnx --cores 8 --resources gpu=1
rule export_trained:
    input:
        networks=[f"{RESULTS}/training/{{network}}/seed_{seed}/network.pt" for seed in range(CONFIG["evaluation"]["trainings"])],
        arrays=ancient(rules.train_supernet.input.arrays),
        data=rules.download_cifar.output.description,
        tables=tables_of_network,
        choice=choice_of_network,
        measured=measured_of_network,
    output:
        multiext(f"{RESULTS}/trained/{{network}}", program=".pt2", onnx=".onnx", weights=".safetensors", card=".md"),
    log:
        f"{RESULTS}/logs/export_trained/{{network}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/export_trained/{{network}}.tsv"
    conda:
        "../envs/fbnet.yaml"
    params:
        **program("export_model.py"),
        data=lambda wildcards, input: Path(input.data).parent,
        measurements=measurements_of_network,
        choice=file_option("choice", "choice"),
    shell:
        "{params.run} --trained {input.networks:q} --data {params.data:q} --table {input.tables:q}"
        " --measurement {params.measurements:q} {params.choice:q} --out {output.onnx:q} --log {log:q}"


# The same of every search: snakemake all_trained --cores 8 --resources gpu=1
rule all_trained:
    input:
        [f"{RESULTS}/trained/{search}.onnx" for search in CONFIG["searches"]],


rule measure_architecture:
    input:
        architectures=f"{RESULTS}/architectures/{{set}}.tsv",
        table=latency_table,
    output:
        f"{RESULTS}/measurement/{{set}}.tsv",
    log:
        f"{RESULTS}/logs/measure_architecture/{{set}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/measure_architecture/{{set}}.tsv"
    group:
        "architectures"
    conda:
        "../envs/fbnet.yaml"
    # All cores, although one may do: no other job disturbs the measurement.
    threads: workflow.cores
    resources:
        **node_resources(),
        gpu=gpus_to_measure,
    params:
        **program("measure_architecture.py"),
        space=json_of(SPACE.definition),
        classes=CLASSES,
        options=target_options,
        runs=CONFIG["evaluation"]["runs"],
    shell:
        "{params.run} --architectures {input.architectures:q} --table {input.table:q}"
        " --space {params.space:q} --classes {params.classes} {params.options:q} --runs {params.runs}"
        " --out {output:q} --log {log:q}"


# What searches have chosen for one budget after the other, before anything is trained: snakemake plot_front --cores 8
rule plot_front:
    input:
        choices=[f"{RESULTS}/choice/{search}.tsv" for search in CONFIG["searches"]],
        measurements=[f"{RESULTS}/measurement/{search}.tsv" for search in CONFIG["searches"] if is_measured(SETS[search].target)],
    output:
        table=f"{RESULTS}/front.tsv",
        picture=report(f"{RESULTS}/front.svg", category="Searches", caption="../report/front.rst"),
    log:
        f"{RESULTS}/logs/plot_front/front.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_front/front.tsv"
    group:
        "report"
    conda:
        "../envs/fbnet.yaml"
    params:
        **program("plot_front.py"),
        searches=front_options,
    shell:
        "{params.run} {params.searches:q} --out {output.table:q} --picture {output.picture:q} --log {log:q}"


rule evaluate_supernet:
    input:
        supernet=in_supernet("supernet.pt"),
        arrays=ancient(rules.train_supernet.input.arrays),
        data=rules.download_cifar.output.description,
        architectures=architectures_beside,
    output:
        f"{RESULTS}/evaluation/{{search}}.supernet.tsv",
    log:
        f"{RESULTS}/logs/evaluate_supernet/{{search}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate_supernet/{{search}}.tsv"
    conda:
        "../envs/fbnet.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=lambda wildcards: min(CONFIG["searches"][wildcards.search]["gpu"], 1),
    params:
        **program("evaluate_supernet.py"),
        data=lambda wildcards, input: Path(input.data).parent,
    shell:
        "{params.run} --supernet {input.supernet:q} --data {params.data:q}"
        " --architectures {input.architectures:q} --threads {threads} --out {output:q} --log {log:q}"


rule evaluate:
    input:
        architectures=[f"{RESULTS}/architectures/{name}.tsv" for name in SETS],
        trainings=trainings(),
        measurements=[f"{RESULTS}/measurement/{name}.tsv" for name, entry in SETS.items() if is_measured(entry.target)],
        supernets=[f"{RESULTS}/evaluation/{search}.supernet.tsv" for search in CONFIG["searches"]],
        histories=[f"{RESULTS}/search/{supernet}/history.tsv" for supernet in TRAINED_FOR],
        races=[f"{RESULTS}/race/{search}/race.tsv" for search in CONFIG["searches"] if RACE["epochs"]],
        tables=sorted(
            {f"{RESULTS}/latency/{target}.tsv" for target in USED}
            | {table for entry in SETS.values() for table in tables_of_budgets(entry.others)}
        ),
        validations=[f"{RESULTS}/latency/{target}.validation.tsv" for target in USED if is_validated(target)],
    output:
        summary=report(f"{RESULTS}/evaluation/summary.tsv", category="Evaluation", caption="../report/summary.rst"),
        runs=f"{RESULTS}/evaluation/runs.tsv",
        comparisons=f"{RESULTS}/evaluation/comparisons.tsv",
        ranking=f"{RESULTS}/evaluation/ranking.tsv",
        devices=f"{RESULTS}/evaluation/devices.tsv",
        findings=f"{RESULTS}/evaluation/findings.tsv",
    log:
        f"{RESULTS}/logs/evaluate/evaluate.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate/evaluate.tsv"
    group:
        "report"
    conda:
        "../envs/fbnet.yaml"
    params:
        **program("evaluate.py"),
        space=json_of(SPACE.definition),
        classes=CLASSES,
        plan=evaluation_plan(),
        trainings=CONFIG["evaluation"]["trainings"],
        results=lambda wildcards, output: Path(output.summary).parents[1],
        out=lambda wildcards, output: Path(output.summary).parent,
    shell:
        "{params.run} --results {params.results:q} --plan {params.plan:q} --space {params.space:q}"
        " --classes {params.classes} --trainings {params.trainings} --out {params.out:q} --log {log:q}"


rule plot_search:
    input:
        theta=in_supernet("theta.tsv"),
        history=in_supernet("history.tsv"),
        architectures=f"{RESULTS}/architectures/{{search}}.tsv",
        table=latency_table,
    output:
        theta=report(f"{RESULTS}/plots/{{search}}.theta.svg", category="Searches", caption="../report/theta.rst"),
        history=report(f"{RESULTS}/plots/{{search}}.history.svg", category="Searches", caption="../report/history.rst"),
        architecture=report(
            f"{RESULTS}/plots/{{search}}.architecture.svg", category="Searches", caption="../report/architecture.rst"
        ),
    log:
        f"{RESULTS}/logs/plot_search/{{search}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/plot_search/{{search}}.tsv"
    group:
        "report"
    conda:
        "../envs/fbnet.yaml"
    params:
        **program("plot_search.py"),
        space=json_of(SPACE.definition),
        classes=CLASSES,
        budget=lambda wildcards: budget_of(CONFIG["searches"][wildcards.search]["latency_budget"]),
        search=lambda wildcards, input: Path(input.theta).parent,
    shell:
        "{params.run} --search {params.search:q} --architectures {input.architectures:q}"
        " --space {params.space:q} --name {wildcards.search} --table {input.table:q} --classes {params.classes}"
        " {params.budget[options]:q} --theta {output.theta:q} --history {output.history:q}"
        " --architecture {output.architecture:q} --log {log:q}"


rule make_report:
    input:
        summary=rules.evaluate.output.summary,
        comparisons=rules.evaluate.output.comparisons,
        ranking=rules.evaluate.output.ranking,
        devices=rules.evaluate.output.devices,
        findings=rules.evaluate.output.findings,
        supernets=rules.evaluate.input.supernets,
        plots=[
            f"{RESULTS}/plots/{search}.{what}.svg" for search in CONFIG["searches"] for what in rules.plot_search.output.keys()
        ],
        latency=[path for target in USED for path in files_of_target(target) if path != "-"],
    output:
        report=report(f"{RESULTS}/report.html", category="Evaluation", caption="../report/report.rst"),
        scatter=report(f"{RESULTS}/plots/accuracy_latency.svg", category="Evaluation", caption="../report/accuracy_latency.rst"),
    log:
        f"{RESULTS}/logs/make_report/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/make_report/report.tsv"
    group:
        "report"
    conda:
        "../envs/fbnet.yaml"
    params:
        **program("make_report.py"),
        template=file_hash(SCRIPTS / "fbnet/report/page.html.j2"),
        space=json_of(SPACE.definition),
        classes=CLASSES,
        settings=lambda wildcards: json_of(CONFIG),  # a function: {model} in a target's command is no wildcard
        parts=report_options,
    shell:
        "{params.run} --summary {input.summary:q} --comparisons {input.comparisons:q} --ranking {input.ranking:q}"
        " --devices {input.devices:q} --findings {input.findings:q} --space {params.space:q} --classes {params.classes}"
        " --settings {params.settings:q} {params.parts:q} --scatter {output.scatter:q} --out {output.report:q}"
        " --log {log:q}"
