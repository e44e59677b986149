@echo off
rem Make the environment and pass the tests.  Usage: test.bat [OPTIONS of pytest]
setlocal DisableDelayedExpansion
cd /d "%~dp0"
call .\environment.bat ..\tests\requirements.txt
if errorlevel 1 exit /b 1
cd ..
set "PYTHON=.venv\Scripts\python.exe"
%PYTHON% -m ruff check .
if errorlevel 1 exit /b 1
%PYTHON% -m ruff format --check .
if errorlevel 1 exit /b 1
%PYTHON% -m mypy
if errorlevel 1 exit /b 1
%PYTHON% -m pytest -n logical --dist worksteal %*
exit /b %ERRORLEVEL%
